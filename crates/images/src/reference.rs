//! Names of images, by the rules that people know from Docker.

use std::fmt;
use std::str::FromStr;

use crate::Digest;

const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_NAMESPACE: &str = "library";
const DEFAULT_TAG: &str = "latest";

/// Bytes of the repository including its registry, as in Docker's grammar.
const MOST_NAME_BYTES: usize = 255;

/// Bytes of a tag, as in Docker's grammar.
const MOST_TAG_BYTES: usize = 128;

/// A complete image name: `alpine` becomes `docker.io/library/alpine:latest`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// The text is no image name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no image name: {reason}")]
pub struct ReferenceError {
    text: String,
    reason: &'static str,
}

impl Reference {
    /// Host of the registry, with its port if one was given.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path within the registry, such as `library/alpine`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag. None only if a digest was given without one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        parse(text).map_err(|reason| ReferenceError {
            text: text.into(),
            reason,
        })
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            let digest = digest
                .parse()
                .map_err(|_| "the digest is not sha256:<64 hex digits>")?;
            (rest, Some(digest))
        }
        None => (text, None),
    };
    // A colon after the last slash begins the tag; one before it belongs to the registry's port.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    let (registry, path) = match name.split_once('/') {
        Some((first, path)) if is_registry(first) => (check_registry(first)?, path),
        _ => (DEFAULT_REGISTRY, name),
    };
    // The old name of the same registry.
    let registry = if registry == "index.docker.io" {
        DEFAULT_REGISTRY
    } else {
        registry
    };
    let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
        format!("{DEFAULT_NAMESPACE}/{path}")
    } else {
        path.to_owned()
    };
    path.split('/').try_for_each(check_component)?;
    if registry.len() + 1 + repository.len() > MOST_NAME_BYTES {
        return Err("it is too long");
    }
    let default_tag = digest.is_none().then_some(DEFAULT_TAG);
    Ok(Reference {
        registry: registry.into(),
        repository,
        tag: tag.or(default_tag).map(str::to_owned),
        digest,
    })
}

/// Whether the part before the first slash is a host rather than a directory of the default registry.
fn is_registry(first: &str) -> bool {
    first == "localhost"
        || first.contains(['.', ':'])
        || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn check_registry(text: &str) -> Result<&str, &'static str> {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let is_label = |label: &str| {
        let inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty()
            && label.bytes().all(inside)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    if host.split('.').all(is_label) && port.is_none_or(is_port) {
        Ok(text)
    } else {
        Err("the registry is no host name")
    }
}

/// A component is letters and digits, in groups separated by `.`, `_`, `__` or any number of `-`.
fn check_component(component: &str) -> Result<(), &'static str> {
    if component.is_empty() {
        return Err("a part of the repository is empty");
    }
    if component.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("the repository has upper-case letters");
    }
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut separators = component
        .split(is_alphanumeric)
        .filter(|part| !part.is_empty());
    let allowed =
        |part: &str| matches!(part, "." | "_" | "__") || part.bytes().all(|byte| byte == b'-');
    if component.starts_with(is_alphanumeric)
        && component.ends_with(is_alphanumeric)
        && separators.all(allowed)
    {
        Ok(())
    } else {
        Err("the repository may have lower-case letters and digits, with single . _ or - between")
    }
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let inside = |byte: u8| is_word(byte) || byte == b'.' || byte == b'-';
    match tag.as_bytes() {
        [] => Err("the tag is empty"),
        bytes if bytes.len() > MOST_TAG_BYTES => Err("the tag is longer than 128 bytes"),
        [first, rest @ ..] if is_word(*first) && rest.iter().all(|&byte| inside(byte)) => Ok(()),
        _ => Err("the tag may have letters, digits and _ . - only"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_names_are_completed() {
        let digest = Digest::of(b"").to_string();
        for (short, long) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
            ("index.docker.io/alpine", "docker.io/library/alpine:latest"),
            ("grafana/k6", "docker.io/grafana/k6:latest"),
            ("ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1"),
            ("localhost/a", "localhost/a:latest"),
            ("localhost:5000/a:b", "localhost:5000/a:b"),
            ("host:5000/a", "host:5000/a:latest"),
            (
                "my__image-name.x",
                "docker.io/library/my__image-name.x:latest",
            ),
            (
                &format!("alpine@{digest}"),
                &format!("docker.io/library/alpine@{digest}"),
            ),
            (
                &format!("alpine:3@{digest}"),
                &format!("docker.io/library/alpine:3@{digest}"),
            ),
        ] {
            let parsed = short
                .parse::<Reference>()
                .map(|reference| reference.to_string());
            assert_eq!(parsed.as_deref(), Ok(long), "{short}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "empty"),
            ("Alpine", "upper-case"),
            ("a//b", "empty"),
            ("/a", "empty"),
            ("a/", "empty"),
            ("alpine:", "tag is empty"),
            ("alpine:a b", "letters"),
            ("alpine:-x", "letters"),
            ("alp ine", "lower-case letters"),
            ("../a", "host name"),
            ("a..b", "lower-case letters"),
            ("-a", "lower-case letters"),
            ("alpine@sha256:12", "digest"),
            ("host:port/a", "host name"),
            (&"a".repeat(256), "too long"),
            (&format!("a:{}", "b".repeat(129)), "128"),
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_complete_name_is_its_own_completion(text in "[a-z0-9./:_@-]{0,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                let long = reference.to_string();
                prop_assert_eq!(long.parse::<Reference>(), Ok(reference));
            }
        }
    }
}
