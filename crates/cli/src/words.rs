//! Names made up for the user, and `KEY=VALUE` words.

use std::collections::BTreeMap;

use crate::failure::Failure;

/// Longest name that the server takes.
const NAME_MAX: usize = 63;

/// Letters that cannot be mistaken for each other.
const LETTERS: &[u8; 32] = b"abcdefghijkmnopqrstuvwxyz2345678";

const SUFFIX_LEN: usize = 4;

/// A `KEY=VALUE` word of the command line; without `=` there is no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    key: String,
    value: Option<String>,
}

/// Reads `KEY=VALUE` or `KEY`.
pub(crate) fn parse_pair(text: &str) -> Result<Pair, String> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, None),
    };
    if key.is_empty() {
        return Err("the part before `=` is empty".to_owned());
    }
    Ok(Pair {
        key: key.to_owned(),
        value,
    })
}

/// Labels; each needs a value.
pub(crate) fn tags(pairs: &[Pair]) -> Result<BTreeMap<String, String>, Failure> {
    collect(pairs, |key| {
        Err(Failure::usage(format!(
            "the tag {key:?} has no value; write {key}=VALUE"
        )))
    })
}

/// Environment; a key alone takes the value that it has here, and is left out
/// when it has none.
pub(crate) fn env(
    pairs: &[Pair],
    here: impl Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, Failure> {
    collect(pairs, |key| Ok(here(key)))
}

fn collect(
    pairs: &[Pair],
    missing: impl Fn(&str) -> Result<Option<String>, Failure>,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut map = BTreeMap::new();
    for pair in pairs {
        let value = match &pair.value {
            Some(value) => Some(value.clone()),
            None => missing(&pair.key)?,
        };
        if let Some(value) = value {
            map.insert(pair.key.clone(), value);
        }
    }
    Ok(map)
}

/// A name from the last part of an image reference and four random letters.
pub(crate) fn name_for_image(image: &str) -> Result<String, Failure> {
    let path = image.split('@').next().unwrap_or(image);
    let last = path.rsplit('/').next().unwrap_or(path);
    let bare = last.split(':').next().unwrap_or(last);
    name_like(bare)
}

/// A name that begins like another and ends in four random letters.
pub(crate) fn name_like(other: &str) -> Result<String, Failure> {
    let mut random = [0; SUFFIX_LEN];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::plain(format!("no random bytes for a name: {error}")))?;
    Ok(join_name(other, random))
}

fn join_name(stem: &str, random: [u8; SUFFIX_LEN]) -> String {
    let mut name: String = stem
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    // All is ASCII by now, so any byte is a boundary. Room is left for the
    // suffix, and for the number that forks of one call get.
    name.truncate(NAME_MAX - SUFFIX_LEN - 1 - "-1000".len());
    let stem = name.trim_matches('-');
    let suffix: String = random
        .iter()
        .map(|byte| char::from(LETTERS[usize::from(byte % 32)]))
        .collect();
    match stem {
        "" => format!("vm-{suffix}"),
        stem => format!("{stem}-{suffix}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_names_are_legal() {
        for (stem, name) in [
            ("alpine", "alpine-abcd"),
            ("My_App", "my-app-abcd"),
            ("--", "vm-abcd"),
            ("é", "vm-abcd"),
        ] {
            assert_eq!(join_name(stem, [0, 1, 2, 3]), name);
        }
        assert!(join_name(&"x".repeat(200), [0; 4]).len() + "-1000".len() <= NAME_MAX);
    }

    #[test]
    fn the_name_of_an_image_is_its_last_part() {
        for image in [
            "docker.io/library/alpine:3.20",
            "alpine",
            "localhost:5000/alpine@sha256:00",
        ] {
            let name = name_for_image(image).expect("random bytes");
            assert!(name.starts_with("alpine-"), "{name}");
        }
    }

    #[test]
    fn pairs_may_take_values_from_here() {
        let pairs: Vec<Pair> = ["A=1", "B=", "HERE", "GONE", "C=x=y"]
            .into_iter()
            .map(|text| parse_pair(text).expect(text))
            .collect();
        let map = env(&pairs, |key| (key == "HERE").then(|| "h".to_owned())).expect("all good");
        let expected = [("A", "1"), ("B", ""), ("C", "x=y"), ("HERE", "h")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(map, BTreeMap::from(expected));
        tags(&pairs).expect_err("HERE has no value");
        parse_pair("=x").expect_err("no key");
    }
}
