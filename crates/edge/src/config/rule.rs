//! One rule of ingress: which requests, and where to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{HeaderAuth, HostPattern};

/// Sends requests for a host name on a port to a port of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What errors, logs and metrics call the rule; unique in a configuration.
    /// The daemon uses the ingress's id and the rule's number.
    pub id: String,
    /// The names that are meant.
    pub hostname: HostPattern,
    /// TCP port that the edge listens on.
    pub port: u16,
    /// Where to.
    pub target: Target,
    /// Clients speak TLS; a certificate must cover the host name.
    #[serde(default)]
    pub tls: bool,
    /// Requests without TLS, on [`Ingress::http_port`](super::Ingress::http_port) or on the rule's
    /// own port, are sent to the same address with it. Needs `tls`.
    #[serde(default)]
    pub redirect_http: bool,
    /// Requests without this header are refused and nothing is done for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_auth: Option<HeaderAuth>,
    /// A request for an instance in Standby wakes it and is held until it answers.
    #[serde(default)]
    pub wake: bool,
}

/// A port of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Which instance.
    pub instance: InstanceRef,
    /// TCP (or, in a forward, UDP) port inside it.
    pub port: u16,
}

/// Names an instance: by its id or name, or by what the host name captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum InstanceRef {
    /// An id or a name.
    Literal(String),
    /// What stands in the host name for the capture of this name, an id or a name itself.
    Captured(String),
}

/// A text that names no instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an id or name of an instance nor a capture such as {{instance}}")]
pub struct InstanceRefError(String);

impl InstanceRef {
    /// The id or name that is meant, if the host name captured this.
    #[must_use]
    pub fn resolve<'a>(&'a self, captured: &'a str) -> &'a str {
        match self {
            Self::Literal(text) => text,
            Self::Captured(_) => captured,
        }
    }
}

impl FromStr for InstanceRef {
    type Err = InstanceRefError;

    fn from_str(text: &str) -> Result<Self, InstanceRefError> {
        let capture = text
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'));
        let word = capture.unwrap_or(text);
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
        if word.is_empty() || word.len() > 63 || !word.bytes().all(inner) {
            return Err(InstanceRefError(text.chars().take(80).collect()));
        }
        Ok(match capture {
            Some(name) => Self::Captured(name.to_owned()),
            None => Self::Literal(text.to_owned()),
        })
    }
}

impl fmt::Display for InstanceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(text) => f.write_str(text),
            Self::Captured(name) => write!(f, "{{{name}}}"),
        }
    }
}

impl TryFrom<String> for InstanceRef {
    type Error = InstanceRefError;
    fn try_from(text: String) -> Result<Self, InstanceRefError> {
        text.parse()
    }
}

impl From<InstanceRef> for String {
    fn from(instance: InstanceRef) -> Self {
        instance.to_string()
    }
}
