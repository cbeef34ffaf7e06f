//! Frames of the websocket at `GET /instances/{id}/cp`.
//!
//! The client's first frame is text, a [`CpStart`]. An upload is one entry:
//! binary data, then [`CpClientFrame::End`], answered by
//! [`CpServerFrame::Result`]. A download is a tree: for each entry a
//! [`CpServerFrame::Header`], its binary data and a [`CpServerFrame::End`].

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::instances::PathInfo;

/// Most bytes of data in one binary frame, as public clients send it.
pub const MAX_CHUNK_BYTES: usize = 32 * 1024;

/// What to copy: the client's first frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CpStart {
    /// Which way.
    pub direction: CpDirection,
    /// Path in the guest: the target of an upload, else what to read.
    pub guest_path: String,
    /// Upload: the entry is a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_dir: Option<bool>,
    /// Upload: permission bits; 0 or absent is 0644 for files, 0755 for
    /// directories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Upload: owner, used only when group is given too and both are not 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Upload: group, used only with `uid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Download and stat: look at what links lead to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow_links: Option<bool>,
    /// Accepted from older clients; it changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src_basename: Option<String>,
}

/// Which way a copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CpDirection {
    /// Into the guest.
    To,
    /// Out of the guest.
    From,
    /// Nothing is copied; the path is looked at.
    Stat,
}

/// Text frames from the client after the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum CpClientFrame {
    /// All data of the upload was sent.
    End,
}

/// Text frames from the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum CpServerFrame {
    /// What became of an upload.
    Result(CpResult),
    /// A download's next entry.
    Header(CpHeader),
    /// All data of the entry was sent.
    End(CpEnd),
    /// The copy ends here.
    Error(CpError),
    /// Answer to a stat.
    Stat(PathInfo),
}

/// What became of an upload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CpResult {
    /// Whether all is written.
    pub success: bool,
    /// Bytes written; absent means 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes_written: u64,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// An entry of a download.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CpHeader {
    /// Relative; begins with the last part of the requested path.
    pub path: String,
    /// Permission bits, at most 0777.
    pub mode: u32,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Whether it is a symbolic link.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_symlink: bool,
    /// Where the link leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_target: Option<String>,
    /// Exactly as many bytes of data follow.
    pub size: u64,
    /// Seconds since 1970, not negative.
    pub mtime: u64,
    /// Owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

/// End of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CpEnd {
    /// Whether it was the last one.
    #[serde(rename = "final")]
    pub last: bool,
}

/// Why a copy ended early.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CpError {
    /// A sentence for people.
    pub message: String,
    /// Where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn is_false(value: &bool) -> bool {
    !*value
}
