//! The two message sets.
//!
//! Rules of evolution: [`ToGuest::Hello`], [`ToHost::HelloAck`] and [`ToHost::HelloRefused`] keep
//! their place and shape for ever, because they are read before a version is agreed. New messages
//! are appended, and sent only from the version on that knows them. Agents live on in memory
//! images, so a host must speak to every agent from [`crate::VERSION_MIN`] on.

use serde::{Deserialize, Serialize};

use crate::{
    DATA_OVERHEAD, EntryHeader, ExecSpec, ExitStatus, Failure, GuestPhase, HookResult, Identity,
    OutputKind, PathInfo, ProgramExit, StartSpec, TerminalSize, UploadSpec,
};

/// Names one request of the host and, when it opens a session, everything that belongs to the
/// session. Chosen by the host, unique within a connection.
pub type CallId = u32;

/// Opens a connection. Ends every session of the connection before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Random; comes back in the answer.
    pub nonce: u64,
    /// Oldest version the host speaks.
    pub version_min: u16,
    /// Newest version the host speaks.
    pub version_max: u16,
}

/// The agent's answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloAck {
    /// The nonce of the [`Hello`] answered.
    pub nonce: u64,
    /// The version both sides speak from here on: the newest that both know.
    pub version: u16,
    /// The agent's build, for people.
    pub agent: String,
    /// How far the guest is.
    pub phase: GuestPhase,
    /// Everything but the agent stands still: see [`ToGuest::Quiesce`].
    pub frozen: bool,
}

/// Host to agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGuest {
    /// First message of a connection.
    Hello(Hello),
    /// Set the machine up and start its program; answered by [`ToHost::Started`].
    Start {
        /// Call answered.
        call: CallId,
        /// What to start.
        spec: Box<StartSpec>,
    },
    /// The machine woke from a memory image: become the machine described, then let its programs
    /// go on; answered by [`ToHost::Resumed`].
    Resume {
        /// Call answered.
        call: CallId,
        /// Random; comes back in the answer.
        nonce: u64,
        /// Who the machine is from now on.
        identity: Box<Identity>,
    },
    /// Write all file systems out, then stop every process but the agent, so that a memory image
    /// taken now holds no program that could run before it has an identity. Answered by
    /// [`ToHost::Done`] when all of them stand still; after [`ToHost::Failed`] all of them run.
    /// Frozen until [`ToGuest::Thaw`], [`ToGuest::Resume`] or [`ToGuest::Shutdown`].
    Quiesce {
        /// Call answered.
        call: CallId,
    },
    /// Describe a path; answered by [`ToHost::Path`].
    Stat {
        /// Call answered.
        call: CallId,
        /// Absolute path.
        path: String,
        /// Describe the target of a symbolic link instead of the link.
        follow: bool,
    },
    /// Open a command session; it ends with [`ToHost::ExecExit`] or [`ToHost::Failed`].
    Exec {
        /// The session.
        call: CallId,
        /// What to run.
        spec: Box<ExecSpec>,
    },
    /// Open an upload of one entry; it ends with [`ToHost::Uploaded`] or [`ToHost::Failed`].
    Upload {
        /// The session.
        call: CallId,
        /// What to write.
        spec: Box<UploadSpec>,
    },
    /// Open a download; it ends with the last [`ToHost::EntryEnd`] or [`ToHost::Failed`].
    Download {
        /// The session.
        call: CallId,
        /// Absolute path of a file or of the top of a tree.
        path: String,
        /// Send what symbolic links point at instead of the links.
        follow: bool,
    },
    /// Bytes for the standard input of a command or the content of an upload. Costs credit.
    Data {
        /// The session.
        call: CallId,
        /// At most [`crate::MAX_CHUNK`] bytes.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// No more data: end of standard input, or the upload is complete.
    Eof {
        /// The session.
        call: CallId,
    },
    /// The terminal of a command changed its size.
    Resize {
        /// The session.
        call: CallId,
        /// New size.
        size: TerminalSize,
    },
    /// Send a signal to a command's process group.
    Signal {
        /// The session.
        call: CallId,
        /// Signal number.
        signal: i32,
    },
    /// The host lost interest: kill the command, drop the half-made file. Not answered.
    Cancel {
        /// The session.
        call: CallId,
    },
    /// The host has consumed output of this cost.
    Credit {
        /// The session.
        call: CallId,
        /// Cost given back.
        cost: u32,
    },
    /// Stop the program, write everything out and power off; answered by [`ToHost::Done`] when it
    /// is under way.
    Shutdown {
        /// Call answered.
        call: CallId,
        /// Signal for the program; `None` is the stop signal of [`StartSpec`].
        signal: Option<i32>,
        /// Time until the program is killed.
        grace_ms: u64,
    },
    /// The host has recorded [`ToHost::ProgramExited`]: the machine may power off. Answered by
    /// [`ToHost::Done`].
    ExitAck {
        /// Call answered.
        call: CallId,
    },
    /// The same machine goes on: let its processes run again. Answered by [`ToHost::Done`], also
    /// when they run already.
    Thaw {
        /// Call answered.
        call: CallId,
    },
    /// Go the way of [`ToGuest::Resume`] and of a first [`ToGuest::Exec`] without effect and without
    /// running anything of the image, so that both are fast when they are meant. Only while the
    /// machine is frozen. Answered by [`ToHost::Done`].
    Rehearse {
        /// Call answered.
        call: CallId,
    },
}

/// Agent to host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToHost {
    /// The connection stands.
    HelloAck(HelloAck),
    /// No common version.
    HelloRefused {
        /// The nonce of the [`Hello`] answered.
        nonce: u64,
        /// Oldest version the agent speaks.
        version_min: u16,
        /// Newest version the agent speaks.
        version_max: u16,
    },
    /// The program was started. A program that could not be run is reported as started and then
    /// exited with 126 or 127.
    Started {
        /// The call.
        call: CallId,
        /// Process id in the guest, 0 when the program could not be run.
        pid: u32,
    },
    /// The machine is the one described by the [`Identity`].
    Resumed {
        /// The call.
        call: CallId,
        /// The nonce of the request.
        nonce: u64,
        /// Result of the post-fork command, if there was one.
        hook: Option<HookResult>,
    },
    /// A call without result succeeded.
    Done {
        /// The call.
        call: CallId,
    },
    /// The call or session failed and is over.
    Failed {
        /// The call.
        call: CallId,
        /// Why.
        failure: Failure,
    },
    /// Answer to [`ToGuest::Stat`].
    Path {
        /// The call.
        call: CallId,
        /// The answer.
        info: PathInfo,
    },
    /// Output of a command or content of a downloaded file. Costs credit.
    Data {
        /// The session.
        call: CallId,
        /// Where the bytes come from.
        kind: OutputKind,
        /// At most [`crate::MAX_CHUNK`] bytes.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// The command ended and all its output was sent.
    ExecExit {
        /// The session.
        call: CallId,
        /// How it ended.
        status: ExitStatus,
    },
    /// A downloaded entry begins. Costs credit.
    Entry {
        /// The session.
        call: CallId,
        /// The entry.
        header: Box<EntryHeader>,
    },
    /// A downloaded entry is complete. Costs credit.
    EntryEnd {
        /// The session.
        call: CallId,
        /// No other entry follows; the session is over.
        last: bool,
    },
    /// The upload is complete and in its place.
    Uploaded {
        /// The session.
        call: CallId,
        /// Bytes of content written.
        bytes_written: u64,
    },
    /// The agent has consumed input of this cost.
    Credit {
        /// The session.
        call: CallId,
        /// Cost given back.
        cost: u32,
    },
    /// The machine's program ended. Repeated after each Hello until acknowledged.
    ProgramExited(ProgramExit),
}

impl ToGuest {
    /// What the message takes from the window of its session; 0 for messages that are not flow
    /// controlled.
    pub fn cost(&self) -> u32 {
        match self {
            ToGuest::Data { bytes, .. } => payload_cost(bytes.len()),
            ToGuest::Hello(_)
            | ToGuest::Start { .. }
            | ToGuest::Resume { .. }
            | ToGuest::Quiesce { .. }
            | ToGuest::Stat { .. }
            | ToGuest::Exec { .. }
            | ToGuest::Upload { .. }
            | ToGuest::Download { .. }
            | ToGuest::Eof { .. }
            | ToGuest::Resize { .. }
            | ToGuest::Signal { .. }
            | ToGuest::Cancel { .. }
            | ToGuest::Credit { .. }
            | ToGuest::Shutdown { .. }
            | ToGuest::ExitAck { .. }
            | ToGuest::Thaw { .. }
            | ToGuest::Rehearse { .. } => 0,
        }
    }
}

impl ToHost {
    /// What the message takes from the window of its session; 0 for messages that are not flow
    /// controlled.
    pub fn cost(&self) -> u32 {
        match self {
            ToHost::Data { bytes, .. } => payload_cost(bytes.len()),
            ToHost::Entry { header, .. } => payload_cost(header.payload_len()),
            ToHost::EntryEnd { .. } => payload_cost(0),
            ToHost::HelloAck(_)
            | ToHost::HelloRefused { .. }
            | ToHost::Started { .. }
            | ToHost::Resumed { .. }
            | ToHost::Done { .. }
            | ToHost::Failed { .. }
            | ToHost::Path { .. }
            | ToHost::ExecExit { .. }
            | ToHost::Uploaded { .. }
            | ToHost::Credit { .. }
            | ToHost::ProgramExited(_) => 0,
        }
    }
}

/// Cost of `len` bytes of payload. Payloads are bounded by the frame size, so the sum fits.
fn payload_cost(len: usize) -> u32 {
    u32::try_from(len)
        .unwrap_or(u32::MAX)
        .saturating_add(DATA_OVERHEAD)
}
