//! Where a path is: here or in a guest.

use std::path::PathBuf;

/// One end of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Here(PathBuf),
    Guest(GuestPlace),
}

/// A path in a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GuestPlace {
    pub(super) instance: String,
    pub(super) path: String,
}

impl Place {
    /// `INSTANCE:PATH` is in a guest. Instances have neither slashes nor dots
    /// before the colon, so everything else is a path here.
    pub(super) fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some((instance, path))
                if !instance.is_empty() && !instance.contains(['/', '.']) && !path.is_empty() =>
            {
                Self::Guest(GuestPlace {
                    instance: instance.to_owned(),
                    path: path.to_owned(),
                })
            }
            _ => Self::Here(text.into()),
        }
    }
}

impl GuestPlace {
    /// The last part of the path, which a copy is named after; none for paths
    /// that end in no name.
    pub(super) fn file_name(&self) -> Option<&str> {
        let name = self.path.trim_end_matches('/').rsplit('/').next()?;
        (!matches!(name, "" | "." | "..")).then_some(name)
    }

    /// Whether it is written as a directory.
    pub(super) fn wants_directory(&self) -> bool {
        self.path.ends_with('/')
    }

    /// A path below this one.
    pub(super) fn join(&self, name: &str) -> Self {
        Self {
            instance: self.instance.clone(),
            path: format!("{}/{name}", self.path.trim_end_matches('/')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_after_a_name_means_a_guest() {
        for text in ["./a:b", "/a:b", "a", ":b", "web:", "../x", "dir/a:b"] {
            assert_eq!(Place::parse(text), Place::Here(text.into()));
        }
        let Place::Guest(guest) = Place::parse("web-1:/etc/a:b") else {
            panic!("it is in a guest");
        };
        assert_eq!(
            (guest.instance.as_str(), guest.path.as_str()),
            ("web-1", "/etc/a:b")
        );
    }

    #[test]
    fn the_name_is_the_last_part() {
        let name = |path: &str| {
            let place = GuestPlace {
                instance: "web".to_owned(),
                path: path.to_owned(),
            };
            place.file_name().map(str::to_owned)
        };
        assert_eq!(name("/etc/hosts"), Some("hosts".to_owned()));
        assert_eq!(name("etc/"), Some("etc".to_owned()));
        for path in ["/", "", ".", "/etc/.."] {
            assert_eq!(name(path), None, "{path}");
        }
    }
}
