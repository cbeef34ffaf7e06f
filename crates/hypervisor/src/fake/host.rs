//! What outlives a fake driver: the machines, by their run directories.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::hooks::{Held, Hooks, Operation};
use super::machine::Machine;
use crate::ProcessId;

/// Above every number that the kernel gives (2^22 at most), so that no real process is ever meant.
const FIRST_PID: i32 = 1 << 23;

/// A host on which fake machines run. Clones are the same host.
#[derive(Debug, Clone, Default)]
pub struct FakeHost {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    machines: Mutex<HashMap<PathBuf, Arc<Machine>>>,
    started: AtomicU64,
    hooks: Hooks,
}

impl FakeHost {
    /// A host with no machines.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next `operation` fails with `reason`.
    pub fn fail_next(&self, operation: Operation, reason: &str) {
        self.inner.hooks.fail(operation, reason);
    }

    /// The next `operation` stops at its beginning until the answer is released.
    #[must_use]
    pub fn hold_next(&self, operation: Operation) -> Held {
        self.inner.hooks.hold(operation)
    }

    /// Machines that run now.
    #[must_use]
    pub fn machine_count(&self) -> usize {
        self.lock()
            .values()
            .filter(|machine| machine.ended().is_none())
            .count()
    }

    pub(super) fn hooks(&self) -> &Hooks {
        &self.inner.hooks
    }

    pub(super) fn next_process(&self) -> ProcessId {
        let start_time = self.inner.started.fetch_add(1, Ordering::Relaxed) + 1;
        // Tests start far fewer than 2^31 - 2^23 machines.
        ProcessId {
            pid: FIRST_PID + start_time as i32,
            start_time,
        }
    }

    pub(super) fn insert(&self, run_dir: &Path, machine: Arc<Machine>) {
        self.lock().insert(run_dir.to_path_buf(), machine);
    }

    /// The machine in `run_dir`; forgets it if it has ended.
    pub(super) fn find(&self, run_dir: &Path) -> Option<Arc<Machine>> {
        let mut machines = self.lock();
        let machine = machines.get(run_dir)?;
        if machine.ended().is_some() {
            machines.remove(run_dir);
            return None;
        }
        Some(Arc::clone(machine))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Arc<Machine>>> {
        self.inner
            .machines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
