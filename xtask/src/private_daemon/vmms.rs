//! VMMs as the marks in their run directories tell of them.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde::Deserialize;

/// For a killed process to be gone; it has tens of megabytes to give back.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

/// A process, told from a later one with the same number by its start time.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Vmm {
    /// Process number.
    pub(crate) pid: i32,
    start_time: u64,
}

impl Vmm {
    /// The VMM of an instance's directory, if it is alive.
    pub(super) fn of(instance_dir: &Path) -> Option<Self> {
        let text = fs::read(instance_dir.join("run/vmm.pid")).ok()?;
        let vmm: Self = serde_json::from_slice(&text).ok()?;
        vmm.is_alive().then_some(vmm)
    }

    /// Whether the process is there, and is this one. A process that waits for its parent to look
    /// at its end is not.
    pub(crate) fn is_alive(self) -> bool {
        let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", self.pid)) else {
            return false;
        };
        // proc(5): the name, field 2, is in parentheses and may hold anything; field 3 is the state,
        // field 22 the start time.
        let Some((_, rest)) = stat.rsplit_once(')') else {
            return false;
        };
        let fields: Vec<_> = rest.split_whitespace().collect();
        let state = fields.first().copied().unwrap_or("Z");
        let start_time = fields.get(19).and_then(|field| field.parse().ok());
        !matches!(state, "Z" | "X") && start_time == Some(self.start_time)
    }

    /// Ends it and waits until it is gone.
    pub(super) fn kill(self) {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return;
        };
        // It may have ended between the look and the signal; then there is nothing to do.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
        let deadline = Instant::now() + KILL_DEADLINE;
        while self.is_alive() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// All that are alive below the directory of instances.
pub(super) fn alive(instances: &Path) -> Vec<Vmm> {
    let Ok(entries) = fs::read_dir(instances) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| Vmm::of(&entry.path()))
        .collect()
}
