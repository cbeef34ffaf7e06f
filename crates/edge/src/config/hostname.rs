//! Host names and the patterns that rules match them with.

use std::fmt;
use std::str::FromStr;

/// Longest host name, in characters (RFC 1035 without the final dot).
const MAX_LEN: usize = 253;
/// Longest label, in characters (RFC 1035).
const MAX_LABEL_LEN: usize = 63;

/// Why a text is no host name or pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostnameError {
    /// A character, length or label that DNS does not allow.
    #[error(
        "{0:?} is no host name: labels of 1 to {MAX_LABEL_LEN} letters, digits and dashes, at most {MAX_LEN} characters"
    )]
    Shape(String),
    /// Braces that do not pair, or more than one pair.
    #[error(
        "{0:?} has more than one capture, or braces that do not pair; write for example {{instance}}.example.com"
    )]
    Captures(String),
    /// The word in the braces.
    #[error("the capture of {0:?} must be named by lower-case letters, digits and underscores")]
    CaptureName(String),
}

/// A host name in canonical form: lower case, no final dot, no port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hostname(Box<str>);

impl Hostname {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads the host out of an authority such as `Example.com:8080` or `[::1]:80`.
    ///
    /// # Errors
    ///
    /// If what is left without the port is neither a host name nor an address in brackets.
    pub fn from_authority(authority: &str) -> Result<Self, HostnameError> {
        let wrong = || HostnameError::Shape(authority.chars().take(MAX_LEN).collect());
        if let Some(rest) = authority.strip_prefix('[') {
            let (inner, port) = rest.split_once(']').ok_or_else(wrong)?;
            let address: std::net::Ipv6Addr = inner.parse().map_err(|_| wrong())?;
            if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
                return Err(wrong());
            }
            return Ok(Self(format!("[{address}]").into()));
        }
        match authority.split_once(':') {
            Some((host, port)) if is_port(port) => host.parse(),
            Some(_) => Err(wrong()),
            None => authority.parse(),
        }
    }
}

fn is_port(text: &str) -> bool {
    text.is_empty() || (text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok())
}

fn is_label(label: &str) -> bool {
    // Underscores are no part of host names by the letter, but clients send them.
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    (1..=MAX_LABEL_LEN).contains(&label.len())
        && label.bytes().all(inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

impl FromStr for Hostname {
    type Err = HostnameError;

    fn from_str(text: &str) -> Result<Self, HostnameError> {
        if text.len() > MAX_LEN + 1 {
            return Err(HostnameError::Shape(text.chars().take(MAX_LEN).collect()));
        }
        let lower = text.to_ascii_lowercase();
        let name = lower.strip_suffix('.').unwrap_or(&lower);
        if name.len() > MAX_LEN || !name.split('.').all(is_label) {
            return Err(HostnameError::Shape(text.to_owned()));
        }
        Ok(Self(name.into()))
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a rule's host name must look like: a literal name, or one with a capture inside a label,
/// such as `{instance}.example.com` or `app-{instance}.example.com`.
///
/// A capture stands for one or more characters of one label, never for a dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostPattern {
    /// Exactly this name.
    Literal(Hostname),
    /// Any name of this shape.
    Capture {
        /// What stands before the captured text.
        prefix: String,
        /// The name in braces.
        capture: String,
        /// What follows the captured text.
        suffix: String,
    },
}

impl HostPattern {
    /// What the capture stands for in a name, empty for a literal; `None` if the name does not fit.
    #[must_use]
    pub fn matches<'a>(&self, name: &'a Hostname) -> Option<&'a str> {
        match self {
            Self::Literal(literal) => (literal == name).then_some(""),
            Self::Capture { prefix, suffix, .. } => {
                let rest = name.as_str().strip_prefix(prefix.as_str())?;
                let captured = rest.strip_suffix(suffix.as_str())?;
                (!captured.is_empty() && !captured.contains('.')).then_some(captured)
            }
        }
    }

    /// The name of the capture, if there is one.
    #[must_use]
    pub fn capture(&self) -> Option<&str> {
        match self {
            Self::Literal(_) => None,
            Self::Capture { capture, .. } => Some(capture),
        }
    }

    /// Whether both match the same names, whatever their captures are called.
    #[must_use]
    pub fn same_names(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Literal(a), Self::Literal(b)) => a == b,
            (
                Self::Capture { prefix, suffix, .. },
                Self::Capture {
                    prefix: other_prefix,
                    suffix: other_suffix,
                    ..
                },
            ) => prefix == other_prefix && suffix == other_suffix,
            (Self::Literal(_), Self::Capture { .. }) | (Self::Capture { .. }, Self::Literal(_)) => {
                false
            }
        }
    }

    /// How much of a matching name is fixed: of two patterns that match, the larger wins.
    /// A literal beats every pattern.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::Literal(_) => usize::MAX,
            Self::Capture { prefix, suffix, .. } => prefix.len() + suffix.len(),
        }
    }

    /// A name that the pattern matches, for looking up a certificate that would cover it.
    #[must_use]
    pub fn example(&self) -> String {
        match self {
            Self::Literal(name) => name.to_string(),
            Self::Capture { prefix, suffix, .. } => format!("{prefix}x{suffix}"),
        }
    }
}

impl FromStr for HostPattern {
    type Err = HostnameError;

    fn from_str(text: &str) -> Result<Self, HostnameError> {
        let Some((prefix, rest)) = text.split_once('{') else {
            if text.contains('}') {
                return Err(HostnameError::Captures(text.to_owned()));
            }
            return text.parse().map(Self::Literal);
        };
        let (capture, suffix) = rest
            .split_once('}')
            .ok_or_else(|| HostnameError::Captures(text.to_owned()))?;
        if [prefix, capture, suffix]
            .iter()
            .any(|part| part.contains(['{', '}']))
        {
            return Err(HostnameError::Captures(text.to_owned()));
        }
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if capture.is_empty() || capture.len() > MAX_LABEL_LEN || !capture.bytes().all(word) {
            return Err(HostnameError::CaptureName(text.to_owned()));
        }
        let lower_prefix = prefix.to_ascii_lowercase();
        let lower_suffix = suffix.to_ascii_lowercase();
        let lower_suffix = lower_suffix.strip_suffix('.').unwrap_or(&lower_suffix);
        // With one letter for the capture, the whole must be a name.
        format!("{lower_prefix}x{lower_suffix}")
            .parse::<Hostname>()
            .map_err(|_| HostnameError::Shape(text.to_owned()))?;
        Ok(Self::Capture {
            prefix: lower_prefix,
            capture: capture.to_owned(),
            suffix: lower_suffix.to_owned(),
        })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(name) => name.fmt(f),
            Self::Capture {
                prefix,
                capture,
                suffix,
            } => write!(f, "{prefix}{{{capture}}}{suffix}"),
        }
    }
}

impl TryFrom<String> for HostPattern {
    type Error = HostnameError;
    fn try_from(text: String) -> Result<Self, HostnameError> {
        text.parse()
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
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

    fn pattern(text: &str) -> HostPattern {
        text.parse().unwrap()
    }

    #[test]
    fn authorities_lose_their_port_case_and_final_dot() {
        for (authority, host) in [
            ("Example.COM", "example.com"),
            ("example.com.:8080", "example.com"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]:80", "[::1]"),
            ("[0:0::1]", "[::1]"),
        ] {
            assert_eq!(Hostname::from_authority(authority).unwrap().as_str(), host);
        }
        for wrong in [
            "", ":80", "a..b", "a:b", "a:80:80", "[::1", "[::1]x", "a b", "a/b", "-a", "a:99999",
            "é.de",
        ] {
            assert!(Hostname::from_authority(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_capture_is_one_label_or_part_of_it() {
        let any = pattern("{instance}.Example.com");
        assert_eq!(any.matches(&name("web.example.com")), Some("web"));
        assert_eq!(any.matches(&name("a.web.example.com")), None);
        assert_eq!(any.matches(&name("example.com")), None);
        assert_eq!(any.capture(), Some("instance"));
        let part = pattern("app-{x}-eu.example.com");
        assert_eq!(part.matches(&name("app-7-eu.example.com")), Some("7"));
        assert_eq!(part.matches(&name("app--eu.example.com")), None);
        assert!(part.weight() > any.weight());
        assert!(any.same_names(&pattern("{other}.example.com")));
    }

    #[test]
    fn wrong_patterns_are_told_apart() {
        for wrong in ["{a}.{b}.com", "{a.com", "a}.com", "{a{b}}.com", "}{"] {
            let error = wrong.parse::<HostPattern>().unwrap_err();
            assert!(
                matches!(error, HostnameError::Captures(_)),
                "{wrong}: {error}"
            );
        }
        assert!(matches!(
            "{}.com".parse::<HostPattern>(),
            Err(HostnameError::CaptureName(_))
        ));
        assert!(matches!(
            "{a}..com".parse::<HostPattern>(),
            Err(HostnameError::Shape(_))
        ));
        assert!(matches!(
            "*.com".parse::<HostPattern>(),
            Err(HostnameError::Shape(_))
        ));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_parses_prints_back(text in "\\PC{0,80}|[a-c.{}*:\\[\\]-]{0,20}") {
            let _ = Hostname::from_authority(&text);
            if let Ok(name) = text.parse::<Hostname>() {
                prop_assert_eq!(name.as_str().parse::<Hostname>().unwrap(), name.clone());
            }
            if let Ok(pattern) = text.parse::<HostPattern>() {
                prop_assert_eq!(pattern.to_string().parse::<HostPattern>().unwrap(), pattern.clone());
                let example = name(&pattern.example());
                prop_assert!(pattern.matches(&example).is_some());
            }
        }

        #[test]
        fn what_is_captured_puts_the_name_together_again(
            captured in "[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?",
            prefix in "([a-z]{1,4}-)?",
            suffix in "(-[a-z]{1,4})?(\\.[a-z]{1,5}){1,3}",
        ) {
            let pattern = pattern(&format!("{prefix}{{x}}{suffix}"));
            let host = name(&format!("{prefix}{captured}{suffix}"));
            prop_assert_eq!(pattern.matches(&host), Some(captured.as_str()));
        }
    }
}
