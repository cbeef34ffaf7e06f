//! Identity of a process, and the mark its launcher leaves in the run directory.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::procfs;

/// A process, told apart from a later one with the same number by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process number.
    pub pid: i32,
    /// Start time in clock ticks since boot, as in `/proc/<pid>/stat`.
    pub start_time: u64,
}

impl ProcessId {
    /// Identity of the process that now has number `pid`.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        Ok(Self {
            pid,
            start_time: procfs::stat(pid)?.start_time,
        })
    }
}

/// Written by the launcher before it becomes the VMM; outlives the daemon, not the boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunMark {
    pub(crate) pid: i32,
    pub(crate) start_time: u64,
    pub(crate) boot_id: String,
}

impl RunMark {
    /// Name in the run directory.
    pub(crate) const FILE: &'static str = "vmm.pid";

    /// The mark in `run_dir`, if there is one that can be read. One of an earlier boot names no process.
    pub(crate) fn read(run_dir: &Path) -> Option<ProcessId> {
        let text = std::fs::read_to_string(run_dir.join(Self::FILE)).ok()?;
        let mark: Self = serde_json::from_str(&text).ok()?;
        let current = boot_id().ok()?;
        (mark.boot_id == current).then_some(ProcessId {
            pid: mark.pid,
            start_time: mark.start_time,
        })
    }
}

/// The kernel's name for this boot of the host.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}
