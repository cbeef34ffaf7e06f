//! A handle to a fake machine. Dropping it leaves the machine running.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use memory::{Draft, Loader, PAGE_BYTES};
use tokio::time::timeout;

use super::hooks::Operation;
use super::host::FakeHost;
use super::machine::{Condition, Machine};
use super::{mapped, memory_image};
use crate::{
    Captured, ExitReason, GuestStream, MappedRam, MemoryReport, MemoryUse, ProcessId, Snapshots,
    Vm, VmStatus, VmmError,
};

/// Signal number of SIGKILL.
const KILLED: ExitReason = ExitReason::Signal(9);

pub(super) struct FakeVm {
    pub(super) machine: Arc<Machine>,
    pub(super) host: FakeHost,
    pub(super) loader: Arc<Loader>,
    pub(super) saving_hangs_up: bool,
}

#[async_trait]
impl Vm for FakeVm {
    fn process(&self) -> ProcessId {
        self.machine.process
    }

    async fn status(&self) -> Result<VmStatus, VmmError> {
        match *self.machine.condition.borrow() {
            Condition::Running => Ok(VmStatus::Running),
            Condition::Paused => Ok(VmStatus::Paused),
            Condition::Shutdown => Ok(VmStatus::Shutdown),
            Condition::Ended(reason) => Err(VmmError::Exited {
                reason,
                stderr: String::new(),
            }),
        }
    }

    async fn resume(&self) -> Result<(), VmmError> {
        self.host.hooks().pass(Operation::Resume).await?;
        self.machine.set_running(true)
    }

    async fn pause(&self) -> Result<(), VmmError> {
        self.host.hooks().pass(Operation::Pause).await?;
        self.machine.set_running(false)
    }

    async fn quit(&self) -> Result<(), VmmError> {
        self.host.hooks().pass(Operation::Quit).await?;
        self.machine.end(ExitReason::Code(0));
        Ok(())
    }

    async fn kill(&self) -> Result<(), VmmError> {
        self.host.hooks().pass(Operation::Kill).await?;
        self.machine.end(KILLED);
        Ok(())
    }

    async fn exited(&self) -> ExitReason {
        let mut condition = self.machine.condition.subscribe();
        match condition
            .wait_for(|now| matches!(now, Condition::Ended(_)))
            .await
            .as_deref()
        {
            Ok(Condition::Ended(reason)) => *reason,
            // The sender is held by the machine that this handle holds.
            Ok(_) | Err(_) => ExitReason::Unknown,
        }
    }

    async fn powered_off(&self) {
        let mut condition = self.machine.condition.subscribe();
        let off = |now: &Condition| matches!(now, Condition::Shutdown | Condition::Ended(_));
        // As above, the sender stays.
        let _ = condition.wait_for(off).await;
    }

    async fn dial(&self, deadline: Duration) -> Result<GuestStream, VmmError> {
        self.host.hooks().pass(Operation::Dial).await?;
        match timeout(deadline, self.machine.connect()).await {
            Ok(stream) => Ok(Box::new(stream?)),
            Err(_) => Err(VmmError::Timeout {
                what: "connecting to the guest",
                after: deadline,
            }),
        }
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        Some(self)
    }

    fn memory(&self) -> Option<&dyn MemoryReport> {
        Some(self)
    }

    fn mapped_ram(&self) -> Option<&dyn MappedRam> {
        self.machine.table().is_some().then_some(self)
    }
}

#[async_trait]
impl Snapshots for FakeVm {
    async fn capture(&self, draft: &mut Draft) -> Result<Captured, VmmError> {
        self.host.hooks().pass(Operation::Capture).await?;
        if self.status().await? != VmStatus::Paused {
            return Err(VmmError::unusable("only a paused machine can be captured"));
        }
        if !self.machine.begin_capture() {
            return Err(VmmError::unusable(
                "the machine was captured already and has not run since",
            ));
        }
        let captured = memory_image::capture(&self.machine, draft, &self.loader);
        if self.saving_hangs_up {
            self.machine.hang_up();
        }
        captured
    }
}

#[async_trait]
impl MemoryReport for FakeVm {
    async fn report(&self) -> Result<MemoryUse, VmmError> {
        let used = match self.machine.table() {
            Some(table) => mapped::present(&self.machine, table).len() as u64 * PAGE_BYTES as u64,
            None => self.machine.guest.save().len() as u64,
        };
        let (ram_shared_bytes, ram_private_bytes) = if self.machine.base.is_some() {
            (used, 0)
        } else {
            (0, used)
        };
        let rss_bytes = used;
        let ram_bytes = self.machine.facts.ram_bytes;
        Ok(MemoryUse {
            ram_bytes,
            ram_shared_bytes,
            ram_private_bytes,
            rss_bytes,
            pss_bytes: used,
            ..MemoryUse::default()
        })
    }
}
