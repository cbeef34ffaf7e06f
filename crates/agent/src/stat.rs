//! Describing a path.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use protocol::{Failure, Owner, PathFacts, PathInfo, PathKind};

use crate::paths;

/// Permission bits of a mode, set-id and sticky bits included.
const PERMISSIONS: u32 = 0o7777;

/// Answers a stat request.
pub(crate) fn stat(path: &str, follow: bool) -> Result<PathInfo, Failure> {
    let path = paths::absolute(path)?;
    match facts(&path, follow) {
        Ok(facts) => Ok(PathInfo::Found(facts)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(PathInfo::Missing)
        }
        Err(error) => Ok(PathInfo::Unreadable {
            message: error.to_string(),
        }),
    }
}

/// What is at `path`.
pub(crate) fn facts(path: &Path, follow: bool) -> io::Result<PathFacts> {
    let metadata = if follow {
        fs::metadata(path)?
    } else {
        fs::symlink_metadata(path)?
    };
    let kind = kind_of(metadata.file_type());
    let link_target = match kind {
        PathKind::Symlink => Some(fs::read_link(path)?.to_string_lossy().into_owned()),
        PathKind::File | PathKind::Directory | PathKind::Other => None,
    };
    Ok(PathFacts {
        kind,
        mode: metadata.mode() & PERMISSIONS,
        size: metadata.size(),
        owner: Owner {
            uid: metadata.uid(),
            gid: metadata.gid(),
        },
        mtime: metadata.mtime(),
        link_target,
    })
}

fn kind_of(file_type: fs::FileType) -> PathKind {
    if file_type.is_file() {
        PathKind::File
    } else if file_type.is_dir() {
        PathKind::Directory
    } else if file_type.is_symlink() {
        PathKind::Symlink
    } else {
        PathKind::Other
    }
}
