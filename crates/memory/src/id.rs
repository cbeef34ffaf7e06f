//! Identifiers of images and layers: 24 characters, lower-case letters and digits, the first one a letter.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Characters in an identifier; the same as in instance ids, so that all ids look alike in paths and logs.
const ID_CHARS: usize = 24;

/// The text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an id: 24 lower-case letters and digits, a letter first")]
pub struct ParseIdError {
    text: String,
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// A fresh random id; fails only if the kernel gives no random bytes.
            pub fn random() -> std::io::Result<Self> {
                random_text().map(Self)
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                Self::try_from(text.to_owned())
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseIdError;

            fn try_from(text: String) -> Result<Self, ParseIdError> {
                if is_id(&text) { Ok(Self(text)) } else { Err(ParseIdError { text }) }
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

id_type! {
    /// Names one memory image; also the name of its directory.
    ImageId
}

id_type! {
    /// Names one RAM layer; images that share a layer share its id and its bytes.
    LayerId
}

fn is_id(text: &str) -> bool {
    text.len() == ID_CHARS
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

fn random_text() -> std::io::Result<String> {
    const LETTERS: &[u8; 26] = b"abcdefghijklmnopqrstuvwxyz";
    const ALL: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut bytes = [0_u8; ID_CHARS];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    // The bias of the remainder costs a fraction of a bit per character; 24 characters keep more than 120 bits.
    let text = bytes.iter().enumerate().map(|(at, byte)| {
        let byte = usize::from(*byte);
        char::from(if at == 0 {
            LETTERS[byte % LETTERS.len()]
        } else {
            ALL[byte % ALL.len()]
        })
    });
    Ok(text.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_it_makes() {
        for _ in 0..100 {
            let id = ImageId::random().unwrap();
            assert_eq!(id.to_string().parse::<ImageId>(), Ok(id));
        }
    }

    #[test]
    fn refuses_what_is_no_id() {
        for text in [
            "",
            "abc",
            "0bcdefghijklmnopqrstuvwx",
            "Abcdefghijklmnopqrstuvwx",
            "abcdefghijklmnopqrstuvw/",
        ] {
            assert!(text.parse::<LayerId>().is_err(), "{text:?} was accepted");
        }
    }
}
