//! Identifiers: opaque, unguessable, safe in paths and URLs.

use std::fmt;
use std::str::FromStr;

/// Length of every id, in characters (the length that the public SDKs expect).
const ID_LEN: usize = 24;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id has {ID_LEN} lower-case letters and digits and starts with a letter")]
pub struct IdError;

fn parse(text: &str) -> Result<Box<str>, IdError> {
    let bytes = text.as_bytes();
    let shape = bytes.len() == ID_LEN
        && bytes[0].is_ascii_lowercase()
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    shape.then(|| text.into()).ok_or(IdError)
}

/// Spells 16 random bytes as an id: the first character is a letter, the rest
/// base 36. About 122 bits of the entropy survive.
fn spell(entropy: [u8; 16]) -> Box<str> {
    const LETTERS: &[u8; 26] = b"abcdefghijklmnopqrstuvwxyz";
    const DIGITS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut rest = u128::from_le_bytes(entropy);
    let mut text = String::with_capacity(ID_LEN);
    text.push(char::from(LETTERS[(rest % 26) as usize]));
    rest /= 26;
    for _ in 1..ID_LEN {
        text.push(char::from(DIGITS[(rest % 36) as usize]));
        rest /= 36;
    }
    text.into()
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// Makes an id from 16 bytes of entropy that the caller drew.
            #[must_use]
            pub fn from_entropy(entropy: [u8; 16]) -> Self {
                Self(spell(entropy))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                parse(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                parse(&text).map(Self)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// Names one instance for ever; never used again after its deletion.
    InstanceId
);
id!(
    /// Names one memory image: a new standby always gets a new one.
    ImageId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_from_entropy_parse_back() {
        for seed in 0..=255 {
            let id = InstanceId::from_entropy([seed; 16]);
            assert_eq!(id.as_str().parse::<InstanceId>(), Ok(id.clone()));
        }
    }

    #[test]
    fn hostile_texts_are_no_ids() {
        for text in [
            "",
            "../../../../etc/passwd00",
            "1aaaaaaaaaaaaaaaaaaaaaaa",
            "Aaaaaaaaaaaaaaaaaaaaaaaa",
            "aaaaaaaaaaaaaaaaaaaaaaa",
            "aaaaaaaaaaaaaaaaaaaaaaaaa",
            "aaaaaaaaaaaa/aaaaaaaaaaa",
        ] {
            assert_eq!(text.parse::<InstanceId>(), Err(IdError), "{text}");
        }
    }
}
