//! The host's end of the channel to a guest's agent.
//!
//! [`Link`] is one connection: it is made over any byte stream, answers calls with deadlines and
//! opens sessions (commands, uploads, downloads) that are flow controlled one by one. What the
//! messages look like is crate `protocol`.

mod deadline;
mod driver;
mod error;
mod events;
mod exec;
#[cfg(feature = "fake")]
pub mod fake;
mod handshake;
mod link;
mod router;
mod session;
mod transfer;

pub use error::LinkError;
pub use events::{Events, GuestEvent};
pub use exec::{ExecInput, ExecOutput, ExecSession, Output};
pub use link::{Link, Started};
pub use protocol::{
    EntryHeader, EntryKind, ExecSpec, ExitStatus, Failure, FailureKind, GuestNetwork, GuestPhase,
    HookResult, Identity, MAX_CHUNK, MIN_ENTROPY, MachineId, Owner, PathFacts, PathInfo, PathKind,
    PostFork, ProgramExit, ResumeReport, StartSpec, TerminalSize, UploadKind, UploadSpec,
};
pub use transfer::{Download, DownloadItem, Upload};
