//! Finding directories of the tree by names that come from a layer.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::tree::TreeProblem;
use crate::Refusal;

/// Links followed on the way to one entry; the kernel's own number.
const MOST_LINKS: usize = 40;

pub(super) const DIRECTORY: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A directory of the tree.
pub(super) struct Found {
    pub dir: OwnedFd,
    /// Free of links.
    pub path: Vec<u8>,
    /// Directories that were made on the way.
    pub made: u64,
}

/// Goes to a directory, component by component, following links within the tree. Directories that do
/// not exist are made if `create`.
pub(super) fn to_directory(
    root: BorrowedFd<'_>,
    to: &[Vec<u8>],
    create: bool,
    most_depth: usize,
) -> Result<Found, TreeProblem> {
    let mut made = 0;
    let mut way: Vec<(OwnedFd, Vec<u8>)> = Vec::new();
    let mut ahead: VecDeque<Vec<u8>> = to.iter().cloned().collect();
    let mut links = 0;
    while let Some(component) = ahead.pop_front() {
        match component.as_slice() {
            b"" | b"." => continue,
            b".." => {
                way.pop().ok_or(Refusal::OutsideLink)?;
                continue;
            }
            _ => {}
        }
        if way.len() >= most_depth {
            return Err(Refusal::TooManyLinks.into());
        }
        let here = way.last().map_or(root, |(dir, _)| dir.as_fd());
        let name = OsStr::from_bytes(&component);
        match file_type_at(here, name)? {
            Some(FileType::Directory) => {}
            Some(FileType::Symlink) => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Refusal::TooManyLinks.into());
                }
                let target = fs::readlinkat(here, name, Vec::new())?.into_bytes();
                if target.starts_with(b"/") {
                    way.clear();
                }
                for part in target.split(|&byte| byte == b'/').rev() {
                    ahead.push_front(part.to_vec());
                }
                continue;
            }
            Some(_) => return Err(Refusal::ParentNotDirectory.into()),
            None if create => {
                fs::mkdirat(here, name, Mode::from_raw_mode(0o755))?;
                made += 1;
            }
            None => return Err(Errno::NOENT.into()),
        }
        let dir = open_directory(here, name)?;
        way.push((dir, component));
    }
    let names: Vec<_> = way.iter().map(|(_, name)| name.as_slice()).collect();
    let path = names.join(&b'/');
    let dir = match way.pop() {
        Some((dir, _)) => dir,
        None => root.try_clone_to_owned()?,
    };
    Ok(Found { dir, path, made })
}

pub(super) fn file_type_at(dir: impl AsFd, name: &OsStr) -> Result<Option<FileType>, Errno> {
    match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

pub(super) fn open_directory(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    fs::openat(dir, name, DIRECTORY, Mode::empty())
}
