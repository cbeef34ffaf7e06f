//! The machines that were ever started, as a test holds them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use guest::fake::FakeAgent;
use hypervisor::{Vm, VmStatus};

/// What the VMM of a machine says of itself instead of the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pretence {
    Status(VmStatus),
    /// Its control socket does not answer.
    Silent,
    /// It is killed at the moment in which somebody asks whether its guest powers off.
    DiesWhenWaitedFor,
}

#[derive(Default)]
pub(crate) struct Machines {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    agents: HashMap<String, FakeAgent>,
    started: Vec<(String, Arc<dyn Vm>)>,
    pretences: HashMap<String, Pretence>,
}

impl Machines {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub(super) fn set_agent(&self, id: &str, agent: FakeAgent) {
        self.inner().agents.insert(id.to_owned(), agent);
    }

    /// The agent of the newest machine of an instance.
    pub(crate) fn agent(&self, id: &str) -> FakeAgent {
        self.inner().agents[id].clone()
    }

    pub(super) fn add(&self, id: &str, vm: Arc<dyn Vm>) {
        self.inner().started.push((id.to_owned(), vm));
    }

    pub(super) fn pretence(&self, id: &str) -> Option<Pretence> {
        self.inner().pretences.get(id).copied()
    }

    /// From now on the VMM of `id` says this.
    pub(crate) fn pretend(&self, id: &str, pretence: Pretence) {
        self.inner().pretences.insert(id.to_owned(), pretence);
    }

    /// Machines whose VMM has not ended: instance, pid, and what they really do.
    pub(crate) async fn alive(&self) -> Vec<(String, i32, VmStatus)> {
        let started = self.inner().started.clone();
        let mut alive = Vec::new();
        for (id, vm) in started {
            if let Ok(status) = vm.status().await {
                alive.push((id, vm.process().pid, status));
            }
        }
        alive
    }

    /// Pid of the machine of `id`, if it is up.
    pub(crate) async fn pid(&self, id: &str) -> Option<i32> {
        let alive = self.alive().await;
        alive
            .into_iter()
            .find(|(up, ..)| up == id)
            .map(|(_, pid, _)| pid)
    }

    /// Kills the VMM of `id`, as the kernel does when it needs memory.
    pub(crate) async fn kill(&self, id: &str) {
        let vm = {
            let inner = self.inner();
            let newest = inner.started.iter().rev().find(|(up, _)| up == id);
            Arc::clone(&newest.unwrap().1)
        };
        vm.kill().await.unwrap();
    }
}
