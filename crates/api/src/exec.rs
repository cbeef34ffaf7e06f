//! Frames of the websocket at `GET /instances/{id}/exec`.
//!
//! The client's first frame is text, an [`ExecStart`]. After it, binary frames
//! carry bytes and the server's one text frame, an [`ExecExit`], is the last.
//!
//! With [`ExecStreams::Merged`], what public clients speak, a binary frame is
//! just bytes: stdin one way, stdout and stderr mixed the other way, and there
//! is no way to end stdin. With [`ExecStreams::Tagged`], an extension of
//! coppice, the first byte of each binary frame is one of [`tag`], and a stdin
//! frame without further bytes is the end of stdin.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Most bytes of data in one binary frame, as public clients send it.
pub const MAX_CHUNK_BYTES: usize = 32 * 1024;

/// Exit code of a command that ran into its timeout, as `timeout(1)` gives it.
pub const EXIT_TIMED_OUT: i32 = 124;

/// Exit code of a command that could not be started, as shells give it.
pub const EXIT_NOT_STARTED: i32 = 127;

/// First bytes of binary frames with [`ExecStreams::Tagged`].
pub mod tag {
    /// Client to server; without further bytes the end of stdin.
    pub const STDIN: u8 = 0;
    /// Server to client.
    pub const STDOUT: u8 = 1;
    /// Server to client; never with a terminal.
    pub const STDERR: u8 = 2;
}

/// What to run: the client's first frame.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecStart {
    /// Program and arguments; `/bin/sh` when empty.
    #[serde(default)]
    pub command: Vec<String>,
    /// Give it a terminal.
    #[serde(default)]
    pub tty: bool,
    /// On top of the environment of the image and the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, String>>,
    /// Where to run it; the image's working directory when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Seconds after which it is killed; none or 0 for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u32>,
    /// Seconds to wait for the agent to answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_for_agent: Option<u32>,
    /// Height of the terminal, 24 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u16>,
    /// Width of the terminal, 80 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cols: Option<u16>,
    /// User or `user:group` by name or number; the image's when absent. An
    /// extension of coppice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// How bytes are framed. An extension of coppice.
    #[serde(default, skip_serializing_if = "ExecStreams::is_merged")]
    pub streams: ExecStreams,
}

/// How bytes are framed in an exec session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExecStreams {
    /// Bare bytes, stdout and stderr mixed.
    #[default]
    Merged,
    /// A byte of [`tag`] before the data of each frame.
    Tagged,
}

impl ExecStreams {
    fn is_merged(&self) -> bool {
        *self == Self::Merged
    }
}

/// A text frame from the client that, with a terminal, is not stdin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecResize {
    /// The new size.
    pub resize: TerminalSize,
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TerminalSize {
    /// Height.
    pub rows: u16,
    /// Width.
    pub cols: u16,
}

/// The server's only text frame of a session that began, and its last.
///
/// It must never get a second key: public clients refuse that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExecExit {
    /// Status of the process, 128 and the signal, or one of the constants here.
    #[serde(rename = "exitCode")]
    pub exit_code: i32,
}

/// Sent instead when the first frame cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExecRefusal {
    /// What is wrong with it.
    pub error: String,
}
