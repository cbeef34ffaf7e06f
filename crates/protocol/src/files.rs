//! Paths of a guest: describing, writing and reading them.

use serde::{Deserialize, Serialize};

/// Answer to a question about a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathInfo {
    /// Nothing is there.
    Missing,
    /// Something is there.
    Found(PathFacts),
    /// The guest's kernel would not say.
    Unreadable {
        /// Its reason.
        message: String,
    },
}

/// What is known of an existing path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathFacts {
    /// What it is.
    pub kind: PathKind,
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
    /// Bytes of content; for a link the length of its target.
    pub size: u64,
    /// Owner.
    pub owner: Owner,
    /// Modification time, seconds since 1970.
    pub mtime: i64,
    /// Target, when the path is a symbolic link and was not followed.
    pub link_target: Option<String>,
}

/// Kinds of paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathKind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Device, pipe or socket.
    Other,
}

/// Owner of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// One entry to be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadSpec {
    /// Absolute path. Missing parents are made with mode 0755.
    pub path: String,
    /// What to make.
    pub kind: UploadKind,
    /// Permission bits; `None` keeps those of what is replaced, else 0644 for files and 0755 for
    /// directories.
    pub mode: Option<u32>,
    /// Owner; `None` keeps that of what is replaced, else root.
    pub owner: Option<Owner>,
    /// Modification time, seconds since 1970; `None` is now.
    pub mtime: Option<i64>,
}

/// What an upload makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum UploadKind {
    /// A regular file whose content follows. It appears under its path when it is complete, not
    /// before.
    File,
    /// A directory; one that exists is kept.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points, unchecked.
        target: String,
    },
}

/// An entry of a download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryHeader {
    /// Relative path; its first part is the base name of the path asked for (`rootfs` for `/`).
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
    /// Owner.
    pub owner: Owner,
    /// Modification time, seconds since 1970; negative before.
    pub mtime: i64,
}

/// Kinds of download entries. Devices, pipes and sockets are left out of downloads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    /// Exactly `size` bytes of data follow.
    File {
        /// Bytes of content.
        size: u64,
    },
    /// Its entries follow later, each with its own header.
    Directory,
    /// No data follows.
    Symlink {
        /// Where it points.
        target: String,
    },
}

impl EntryHeader {
    /// Bytes of text in the header, which is what makes its size vary.
    pub(crate) fn payload_len(&self) -> usize {
        let target = match &self.kind {
            EntryKind::Symlink { target } => target.len(),
            EntryKind::File { .. } | EntryKind::Directory => 0,
        };
        self.path.len() + target
    }
}
