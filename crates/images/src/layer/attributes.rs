//! Owner, mode, time and extended attributes of a file in the tree.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::tree::TreeProblem;
use crate::Refusal;

/// Owner, mode, time and attributes of an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes<'a> {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: i64,
    pub extended: &'a [(Vec<u8>, Vec<u8>)],
}

impl Attributes<'_> {
    /// Gives them to a name in a directory. A link gets its own, not its target's.
    pub(super) fn set(
        &self,
        dir: &OwnedFd,
        name: &OsStr,
        kind: FileType,
    ) -> Result<(), TreeProblem> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        // After the owner: giving a file away takes its set-uid bit.
        if kind != FileType::Symlink {
            fs::chmodat(dir, name, Mode::from_raw_mode(self.mode), AtFlags::empty())?;
        }
        for (attribute, value) in self.extended {
            set_attribute(dir, name, attribute, value)?;
        }
        fs::utimensat(dir, name, &times(self.mtime), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }
}

/// Keeps capabilities, access lists and the user's own attributes. Others mean something to the system
/// that made the image (labels of SELinux, marks of overlayfs) and would mislead the guest's.
fn set_attribute(
    dir: &OwnedFd,
    file: &OsStr,
    name: &[u8],
    value: &[u8],
) -> Result<(), TreeProblem> {
    let kept = name.starts_with(b"user.")
        || name.starts_with(b"system.posix_acl_")
        || name == b"security.capability";
    if !kept {
        return Ok(());
    }
    let path = proc_path(dir, file);
    let set = fs::lsetxattr(
        path,
        OsStr::from_bytes(name),
        value,
        fs::XattrFlags::empty(),
    );
    set.map_err(|errno| {
        let name = String::from_utf8_lossy(name).into_owned();
        match errno {
            Errno::NOSPC | Errno::DQUOT => errno.into(),
            _ => Refusal::Attribute {
                name,
                error: errno.to_string(),
            }
            .into(),
        }
    })
}

/// A path to a name in an open directory, for calls that take no directory.
pub(super) fn proc_path(dir: &OwnedFd, name: &OsStr) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name)
}

pub(super) fn times(mtime: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
