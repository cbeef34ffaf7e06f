//! Processes that outlive the daemon: who they are, whether they still run, how they end.

mod handle;
mod id;
mod procfs;
#[expect(
    unsafe_code,
    reason = "the event loop wants a promise about the descriptor it watches"
)]
mod sys;

pub(crate) use handle::Process;
pub use id::ProcessId;
pub(crate) use id::{RunMark, boot_id};
pub(crate) use procfs::{cpu_seconds, vms_bytes};
