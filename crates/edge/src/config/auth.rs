//! A header that requests must carry before anything else is done for them.

use std::fmt;

use hyper::header::{self, HeaderName};

/// Shortest secret, in characters.
const MIN_LEN: usize = 32;
/// Longest secret, in characters.
const MAX_LEN: usize = 256;

/// Headers that frame or route a message, so that no secret can be in them.
const RESERVED: [HeaderName; 10] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
];

/// Why a header or value cannot guard a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderAuthError {
    /// Not a header name, or one that HTTP itself needs.
    #[error("{0:?} cannot be the header of request_header_auth; use for example x-access-key")]
    Header(String),
    /// The text is not told, it may be a real secret with a slip.
    #[error(
        "the value of request_header_auth needs {MIN_LEN} to {MAX_LEN} printable ASCII characters without spaces, *, {{ and }}"
    )]
    Value,
}

/// A header and the value it must have. The value is kept out of `Debug`.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct HeaderAuth {
    header: HeaderName,
    value: String,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    header: String,
    value: String,
}

impl HeaderAuth {
    /// Checks both.
    ///
    /// # Errors
    ///
    /// [`HeaderAuthError`] says which of them cannot be used.
    pub fn new(header: &str, value: impl Into<String>) -> Result<Self, HeaderAuthError> {
        let value = value.into();
        let name = HeaderName::from_bytes(header.as_bytes())
            .ok()
            .filter(|name| !RESERVED.contains(name))
            .ok_or_else(|| HeaderAuthError::Header(header.to_owned()))?;
        let usable = |b: u8| b.is_ascii_graphic() && !b"*{}".contains(&b);
        if !(MIN_LEN..=MAX_LEN).contains(&value.len()) || !value.bytes().all(usable) {
            return Err(HeaderAuthError::Value);
        }
        Ok(Self {
            header: name,
            value,
        })
    }

    /// The header's name.
    #[must_use]
    pub fn header(&self) -> &HeaderName {
        &self.header
    }

    /// The secret.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl fmt::Debug for HeaderAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeaderAuth({}: …)", self.header)
    }
}

impl TryFrom<Wire> for HeaderAuth {
    type Error = HeaderAuthError;
    fn try_from(wire: Wire) -> Result<Self, HeaderAuthError> {
        Self::new(&wire.header, wire.value)
    }
}

impl From<HeaderAuth> for Wire {
    fn from(auth: HeaderAuth) -> Self {
        Self {
            header: auth.header.to_string(),
            value: auth.value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_spaced_and_special_values_are_refused() {
        let fits = "0123456789abcdef0123456789ABCDEF";
        assert!(HeaderAuth::new("X-Key", fits).is_ok());
        assert!(HeaderAuth::new("x-key", &fits[1..]).is_err());
        assert!(HeaderAuth::new("x-key", fits.repeat(9)).is_err());
        for bad in [' ', '*', '{', '}', 'é', '\u{7f}'] {
            assert_eq!(
                HeaderAuth::new("x-key", format!("{fits}{bad}")),
                Err(HeaderAuthError::Value)
            );
        }
        for header in ["host", "Transfer-Encoding", "", "a b"] {
            assert!(HeaderAuth::new(header, fits).is_err(), "{header:?}");
        }
    }

    #[test]
    fn the_secret_is_not_in_debug_output() {
        let value = "0123456789abcdef0123456789ABCDEF";
        let shown = format!("{:?}", HeaderAuth::new("x-key", value).unwrap());
        assert!(!shown.contains(value));
        let error = HeaderAuth::new("x-key", "short secret").unwrap_err();
        assert!(!error.to_string().contains("short"));
    }
}
