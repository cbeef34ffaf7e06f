//! A driver whose machines have an agent: the VMM, its process and the guest are the real ones; on the agent's line a
//! fake agent answers instead of the guest. What it knows is put into the guest's memory whenever the machine stands
//! still, and taken from there when a machine wakes, so it goes where memory goes.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use guest::fake::FakeAgent;
use hypervisor::{
    Driver, ExitReason, GuestStream, LaunchPlan, MappedRam, MemoryReport, Powers, ProcessId,
    RestorePlan, Snapshots, Templates, Vm, VmStatus, VmmError, VmmIdentity,
};

use crate::probe::{BALLAST, BALLAST_PAGES, FREE_PAGE, Line, TURN};

/// Where the agent's state is in the guest's memory.
const STATE: &str = "agent";

/// Bytes on their way to or from the agent.
const PIPE_BYTES: usize = 64 << 10;

/// The guests of all machines that run, by instance. They outlive a daemon, as guests do.
#[derive(Default)]
pub(crate) struct Guests(Mutex<HashMap<String, Guest>>);

#[derive(Clone)]
pub(crate) struct Guest {
    agent: FakeAgent,
    /// The real machine, as the newest driver knows it.
    pub(crate) vm: Arc<dyn Vm>,
    /// When it first answered in this life.
    pub(crate) answered: Instant,
}

impl Guests {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Guest>> {
        self.0.lock().unwrap()
    }

    /// The guest of an instance that runs.
    pub(crate) fn of(&self, instance: &str) -> Guest {
        self.all()[instance].clone()
    }
}

/// The driver.
pub(crate) struct Played {
    pub(crate) inner: Arc<dyn Driver>,
    pub(crate) guests: Arc<Guests>,
}

impl Played {
    fn machine(
        &self,
        name: &str,
        agent: FakeAgent,
        vm: Arc<dyn Vm>,
        answered: Instant,
    ) -> Arc<dyn Vm> {
        let guest = Guest {
            agent,
            vm,
            answered,
        };
        self.guests.all().insert(name.to_owned(), guest.clone());
        Arc::new(PlayedVm(guest))
    }
}

/// What a freshly booted guest is told to have in memory, and with how many processors it works on that.
async fn fill(vm: &dyn Vm, vcpus: u32) -> Result<(), VmmError> {
    let mut line = Line::to(vm).await?;
    if vcpus > 1 {
        line.ask(&format!("turns {TURN}")).await?;
    }
    let tag = format!("tag {FREE_PAGE} {BALLAST_PAGES} {BALLAST}");
    line.ask(&tag).await.map(drop)
}

async fn wake_up(vm: &dyn Vm) -> Result<(FakeAgent, Instant), VmmError> {
    let mut line = Line::to(vm).await?;
    line.ask("beats").await?;
    let answered = Instant::now();
    let state = line.recall(STATE).await?;
    let agent = FakeAgent::load(&state).map_err(|error| VmmError::Unusable {
        what: format!("the agent's state did not come with the memory: {error}"),
    })?;
    Ok((agent, answered))
}

#[async_trait]
impl Driver for Played {
    fn identity(&self) -> &VmmIdentity {
        self.inner.identity()
    }

    fn powers(&self) -> Powers {
        self.inner.powers()
    }

    async fn launch(&self, plan: LaunchPlan) -> Result<Arc<dyn Vm>, VmmError> {
        let (name, vcpus) = (plan.name.clone(), plan.machine.vcpus);
        let vm = self.inner.launch(plan).await?;
        fill(vm.as_ref(), vcpus).await?;
        Ok(self.machine(&name, FakeAgent::new(), vm, Instant::now()))
    }

    async fn restore(&self, plan: RestorePlan) -> Result<Arc<dyn Vm>, VmmError> {
        let name = plan.name.clone();
        let vm = self.inner.restore(plan).await?;
        let (agent, answered) = wake_up(vm.as_ref()).await?;
        Ok(self.machine(&name, agent, vm, answered))
    }

    async fn adopt(&self, run_dir: &Path) -> Result<Option<Arc<dyn Vm>>, VmmError> {
        let Some(vm) = self.inner.adopt(run_dir).await? else {
            return Ok(None);
        };
        let instance = run_dir.parent().unwrap().file_name().unwrap();
        let name = instance.to_str().unwrap();
        let Guest {
            agent, answered, ..
        } = self.guests.of(name);
        Ok(Some(self.machine(name, agent, vm, answered)))
    }

    fn templates(&self) -> Option<&dyn Templates> {
        self.inner.templates()
    }
}

struct PlayedVm(Guest);

#[async_trait]
impl Vm for PlayedVm {
    fn process(&self) -> ProcessId {
        self.0.vm.process()
    }

    async fn status(&self) -> Result<VmStatus, VmmError> {
        self.0.vm.status().await
    }

    async fn resume(&self) -> Result<(), VmmError> {
        self.0.vm.resume().await
    }

    async fn pause(&self) -> Result<(), VmmError> {
        let state = self.0.agent.save();
        let mut line = Line::to(self.0.vm.as_ref()).await?;
        line.keep(STATE, &state).await?;
        drop(line);
        self.0.vm.pause().await
    }

    async fn quit(&self) -> Result<(), VmmError> {
        self.0.vm.quit().await
    }

    async fn kill(&self) -> Result<(), VmmError> {
        self.0.vm.kill().await
    }

    async fn exited(&self) -> ExitReason {
        self.0.vm.exited().await
    }

    async fn powered_off(&self) {
        self.0.vm.powered_off().await;
    }

    async fn dial(&self, _: Duration) -> Result<GuestStream, VmmError> {
        let (host, guest) = tokio::io::duplex(PIPE_BYTES);
        let Guest { agent, vm, .. } = self.0.clone();
        tokio::spawn(async move {
            agent.serve(guest).await;
            if agent.is_powered_off() {
                // It is off when the host sees it, and answers no more.
                let line = Line::to(vm.as_ref()).await;
                let _ = line.unwrap().ask("off").await;
            }
        });
        Ok(Box::new(host))
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        self.0.vm.snapshots()
    }

    fn memory(&self) -> Option<&dyn MemoryReport> {
        self.0.vm.memory()
    }

    fn mapped_ram(&self) -> Option<&dyn MappedRam> {
        self.0.vm.mapped_ram()
    }
}
