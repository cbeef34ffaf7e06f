//! What the host and the agent inside a guest say to each other: messages, framing, flow control,
//! versions.
//!
//! This crate does no input or output. The host side is crate `guest`, the guest side crate
//! `agent`. One channel (a virtio-serial port) carries everything. A connection begins when the
//! host writes [`ToGuest::Hello`] behind a delimiter; what either side had half sent before that
//! fails its checksum and is dropped, and the host ignores everything up to the
//! [`ToHost::HelloAck`] with its own nonce. So a channel survives standby, fork and a restart of
//! the daemon without any common memory of what went before.

mod credit;
mod exec;
mod failure;
mod files;
mod frame;
mod lifecycle;
mod limits;
mod message;
mod network;

pub use credit::{SendWindow, Unreported};
pub use exec::{ExecSpec, ExitStatus, OutputKind, TerminalSize};
pub use failure::{Failure, FailureKind};
pub use files::{
    EntryHeader, EntryKind, Owner, PathFacts, PathInfo, PathKind, UploadKind, UploadSpec,
};
pub use frame::{Decoder, EncodeError, FrameError, encode};
pub use lifecycle::{
    GuestPhase, HookResult, Identity, MachineId, PostFork, ProgramExit, ResumeReport, StartSpec,
};
pub use limits::{
    DATA_OVERHEAD, MAX_CHUNK, MAX_FRAME, MAX_MESSAGE, MAX_SESSIONS, MIN_ENTROPY, STREAM_WINDOW,
    VERSION_MAX, VERSION_MIN,
};
pub use message::{CallId, Hello, HelloAck, ToGuest, ToHost};
pub use network::GuestNetwork;
