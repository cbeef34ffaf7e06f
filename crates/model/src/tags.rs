//! Tags: free key-value pairs on an instance, for finding it again.

use std::collections::BTreeMap;

/// Tags of one object, in the order of their keys.
pub type Tags = BTreeMap<String, String>;

/// Most pairs on one object.
const MAX_PAIRS: usize = 50;
/// Longest key, in characters.
const MAX_KEY: usize = 128;
/// Longest value, in characters.
const MAX_VALUE: usize = 256;

/// Why a set of tags is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    /// More pairs than an object may carry.
    #[error("at most {MAX_PAIRS} tags are allowed, {0} were given")]
    TooMany(usize),
    /// A key is empty or too long.
    #[error("tag key {0:?} must have 1 to {MAX_KEY} characters")]
    KeyLength(String),
    /// A value is too long.
    #[error("the value of tag {0:?} must have at most {MAX_VALUE} characters")]
    ValueLength(String),
    /// A character outside the allowed set.
    #[error("tag {0:?} may only hold letters, digits, spaces and _.:/=+@-")]
    Character(String),
}

/// Checks a set of tags against the limits.
pub fn check(tags: &Tags) -> Result<(), TagError> {
    if tags.len() > MAX_PAIRS {
        return Err(TagError::TooMany(tags.len()));
    }
    let allowed = |c: char| c.is_alphanumeric() || " _.:/=+@-".contains(c);
    for (key, value) in tags {
        if !(1..=MAX_KEY).contains(&key.chars().count()) {
            return Err(TagError::KeyLength(key.clone()));
        }
        if value.chars().count() > MAX_VALUE {
            return Err(TagError::ValueLength(key.clone()));
        }
        if !key.chars().chain(value.chars()).all(allowed) {
            return Err(TagError::Character(key.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &str, value: &str) -> Tags {
        Tags::from([(key.to_owned(), value.to_owned())])
    }

    #[test]
    fn limits_hold() {
        assert_eq!(check(&one("team", "a b_c.d:e/f=g+h@i-j")), Ok(()));
        assert_eq!(check(&one("empty-value", "")), Ok(()));
        assert!(check(&one("", "x")).is_err());
        assert!(check(&one(&"k".repeat(129), "x")).is_err());
        assert!(check(&one("k", &"v".repeat(257))).is_err());
        assert!(check(&one("k", "line\nbreak")).is_err());
        let many: Tags = (0..51).map(|n| (n.to_string(), String::new())).collect();
        assert_eq!(check(&many), Err(TagError::TooMany(51)));
    }
}
