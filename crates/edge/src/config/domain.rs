//! Domains that guests may resolve.

use std::fmt;
use std::str::FromStr;

use super::{Hostname, HostnameError};

/// A domain that a guest may resolve: `example.com`, or `*.example.com` for all names below it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DomainPattern {
    /// This name only.
    Exact(Hostname),
    /// Every name that ends with a dot and this one.
    Below(Hostname),
}

impl DomainPattern {
    /// Whether a name is meant.
    #[must_use]
    pub fn matches(&self, name: &Hostname) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Below(parent) => name
                .as_str()
                .strip_suffix(parent.as_str())
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        }
    }
}

impl FromStr for DomainPattern {
    type Err = HostnameError;
    fn from_str(text: &str) -> Result<Self, HostnameError> {
        match text.strip_prefix("*.") {
            Some(parent) => parent.parse().map(Self::Below),
            None => text.parse().map(Self::Exact),
        }
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::Below(parent) => write!(f, "*.{parent}"),
        }
    }
}

impl TryFrom<String> for DomainPattern {
    type Error = HostnameError;
    fn try_from(text: String) -> Result<Self, HostnameError> {
        text.parse()
    }
}

impl From<DomainPattern> for String {
    fn from(pattern: DomainPattern) -> Self {
        pattern.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Hostname {
        text.parse().unwrap()
    }

    #[test]
    fn domains_below_do_not_include_the_domain_itself() {
        let below: DomainPattern = "*.example.com".parse().unwrap();
        assert!(below.matches(&name("a.b.example.com")));
        assert!(!below.matches(&name("example.com")));
        assert!(!below.matches(&name("badexample.com")));
        let exact: DomainPattern = "example.com".parse().unwrap();
        assert!(exact.matches(&name("EXAMPLE.com.")));
        assert!(!exact.matches(&name("a.example.com")));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_parses_prints_back(text in "\\PC{0,80}|[a-c.*-]{0,20}") {
            if let Ok(domain) = text.parse::<DomainPattern>() {
                prop_assert_eq!(domain.to_string().parse::<DomainPattern>().unwrap(), domain);
            }
        }
    }
}
