//! Paths of requests, and what the kernel says about them.

use std::io;
use std::path::{Path, PathBuf};

use protocol::{Failure, FailureKind};

/// A path of a request must be absolute: the agent has no working directory a client could know.
pub(crate) fn absolute(path: &str) -> Result<PathBuf, Failure> {
    if !path.starts_with('/') {
        return Err(Failure::new(FailureKind::Invalid, "path is not absolute").at(path));
    }
    if path.contains('\0') {
        return Err(
            Failure::new(FailureKind::Invalid, "path contains a zero byte")
                .at(path.replace('\0', "?")),
        );
    }
    Ok(PathBuf::from(path))
}

/// The failure an error of the kernel becomes.
pub(crate) fn failure(error: &io::Error, path: &Path) -> Failure {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => FailureKind::NotFound,
        io::ErrorKind::PermissionDenied => FailureKind::Denied,
        io::ErrorKind::IsADirectory => FailureKind::IsDirectory,
        io::ErrorKind::NotADirectory => FailureKind::NotDirectory,
        _ => FailureKind::Io,
    };
    Failure::new(kind, error.to_string()).at(path.to_string_lossy())
}

/// First part of all paths of a download: the base name of the path asked for.
pub(crate) fn base_name(path: &Path) -> PathBuf {
    path.file_name()
        .map_or_else(|| PathBuf::from("rootfs"), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_paths_are_taken() {
        assert!(absolute("/etc/../etc/hosts").is_ok());
        for bad in ["", "etc", "./x", "/a\0b"] {
            assert_eq!(
                absolute(bad).unwrap_err().kind,
                FailureKind::Invalid,
                "{bad:?}"
            );
        }
    }

    #[test]
    fn downloads_begin_with_the_base_name() {
        for (path, name) in [
            ("/etc/hosts", "hosts"),
            ("/etc/", "etc"),
            ("/", "rootfs"),
            ("/a/..", "rootfs"),
        ] {
            assert_eq!(base_name(Path::new(path)), Path::new(name), "{path}");
        }
    }
}
