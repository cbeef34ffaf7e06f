//! Processes that outlive the daemon: who they are, whether they still run, how they end.

mod handle;
mod id;
mod procfs;
#[expect(
    unsafe_code,
    reason = "the event loop wants a promise about the descriptor it watches"
)]
mod sys;

/// Whether the VMM of a run directory is alive. For tools; the daemon adopts it instead.
#[must_use]
pub fn is_running(run_dir: &std::path::Path) -> bool {
    RunMark::read(run_dir).is_some_and(|id| ProcessId::of(id.pid).is_ok_and(|found| found == id))
}

pub(crate) use handle::Process;
pub use id::ProcessId;
pub(crate) use id::{RunMark, boot_id};
pub(crate) use procfs::{cpu_seconds, page_faults, user, vms_bytes};
pub(crate) use sys::watch;
