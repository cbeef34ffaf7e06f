//! What is allowed as the name of an entry.

use crate::{Limit, Limits, Refusal};

/// Bytes of a file name on Linux.
const MOST_NAME_BYTES: usize = 255;

/// A name within an image's root: components without `.`, `..` or anything empty. No components at
/// all name the root itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntryPath(Vec<Vec<u8>>);

/// Why a name is not allowed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PathProblem {
    Refused(Refusal),
    Exceeds(Limit),
}

impl EntryPath {
    /// Judges a name as it stands in a layer.
    ///
    /// A leading slash means the image's root, which is what some image builders write. A `..` is
    /// refused even where it would stay inside: no builder writes one.
    pub(crate) fn parse(name: &[u8], limits: &Limits) -> Result<Self, PathProblem> {
        if name.is_empty() || name.contains(&0) {
            return Err(PathProblem::Refused(Refusal::NoPath));
        }
        if name.len() as u64 > limits.path_bytes {
            return Err(PathProblem::Exceeds(Limit::PathBytes));
        }
        let mut components = Vec::new();
        for component in name.split(|&byte| byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return Err(PathProblem::Refused(Refusal::ParentComponent)),
                long if long.len() > MOST_NAME_BYTES => {
                    return Err(PathProblem::Refused(Refusal::NameTooLong));
                }
                ordinary => components.push(ordinary.to_vec()),
            }
        }
        if components.len() as u64 > limits.path_depth {
            return Err(PathProblem::Exceeds(Limit::PathDepth));
        }
        Ok(Self(components))
    }

    /// The components of the directory it is in, and its last one. None for the root.
    pub(crate) fn split_last(&self) -> Option<(&[Vec<u8>], &[u8])> {
        let (name, parent) = self.0.split_last()?;
        Some((parent, name))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(name: &[u8]) -> Result<Vec<Vec<u8>>, PathProblem> {
        EntryPath::parse(name, &Limits::default()).map(|path| path.0)
    }

    #[test]
    fn names_are_taken_apart_and_tricks_refused() {
        let refused = |reason| Err(PathProblem::Refused(reason));
        let parts =
            |parts: &[&str]| Ok(parts.iter().map(|part| part.as_bytes().to_vec()).collect());
        for (name, expected) in [
            ("a", parts(&["a"])),
            ("./a/b/", parts(&["a", "b"])),
            ("/a//b", parts(&["a", "b"])),
            (".", parts(&[])),
            ("./", parts(&[])),
            ("...", parts(&["..."])),
            ("", refused(Refusal::NoPath)),
            ("a\0b", refused(Refusal::NoPath)),
            ("..", refused(Refusal::ParentComponent)),
            ("../etc/passwd", refused(Refusal::ParentComponent)),
            ("a/../b", refused(Refusal::ParentComponent)),
            ("a/..", refused(Refusal::ParentComponent)),
            (&"n".repeat(256), refused(Refusal::NameTooLong)),
            (
                &"d/".repeat(129),
                Err(PathProblem::Exceeds(Limit::PathDepth)),
            ),
            (
                &"d/".repeat(2048),
                Err(PathProblem::Exceeds(Limit::PathBytes)),
            ),
        ] {
            assert_eq!(parse(name.as_bytes()), expected, "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn no_accepted_name_can_leave_its_directory(
            name in proptest::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), any::<u8>()], 0..60)
        ) {
            if let Ok(components) = parse(&name) {
                for component in components {
                    prop_assert!(!component.is_empty() && component.len() <= 255);
                    prop_assert!(component != b"." && component != b"..");
                    prop_assert!(!component.contains(&b'/') && !component.contains(&0));
                }
            }
        }
    }
}
