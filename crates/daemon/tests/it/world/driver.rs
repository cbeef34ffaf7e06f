//! The fake driver behind the gate. Machines are started on the world's runtime, not on
//! the daemon's: they outlive it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hypervisor::fake::FakeDriver;
use hypervisor::{
    Captured, Driver, ExitReason, GuestStream, LaunchPlan, MappedRam, MemoryReport, Powers,
    ProcessId, RestorePlan, Snapshots, TemplateHold, Templates, Vm, VmStatus, VmmError,
    VmmIdentity,
};
use memory::Draft;
use tokio::runtime::Handle;

use super::gate::Gate;
use super::machines::{Machines, Pretence};

pub(super) struct GatedDriver {
    pub(super) inner: Arc<FakeDriver>,
    pub(super) parts: Parts,
    pub(super) home: Handle,
}

#[derive(Clone)]
pub(super) struct Parts {
    pub(super) gate: Arc<Gate>,
    pub(super) machines: Arc<Machines>,
}

impl Parts {
    async fn step<T>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T, VmmError>>,
    ) -> Result<T, VmmError> {
        let passed = self
            .gate
            .before(name)
            .await
            .map_err(|what| VmmError::Unusable { what })?;
        let result = work.await;
        self.gate.after(passed).await;
        result
    }

    fn wrap(&self, name: &str, inner: Arc<dyn Vm>) -> Arc<dyn Vm> {
        Arc::new(GatedVm {
            inner,
            name: name.to_owned(),
            parts: self.clone(),
        })
    }
}

impl GatedDriver {
    async fn start<F>(
        &self,
        step: &'static str,
        name: String,
        work: F,
    ) -> Result<Arc<dyn Vm>, VmmError>
    where
        F: Future<Output = Result<Arc<dyn Vm>, VmmError>> + Send + 'static,
    {
        let machines = Arc::clone(&self.parts.machines);
        let id = name.clone();
        let task = async {
            self.home
                .spawn(async move {
                    let vm = work.await?;
                    machines.add(&id, Arc::clone(&vm));
                    Ok(vm)
                })
                .await
                .unwrap()
        };
        let vm = self.parts.step(step, task).await?;
        Ok(self.parts.wrap(&name, vm))
    }
}

#[async_trait]
impl Driver for GatedDriver {
    fn identity(&self) -> &VmmIdentity {
        self.inner.identity()
    }

    fn powers(&self) -> Powers {
        self.inner.powers()
    }

    async fn launch(&self, plan: LaunchPlan) -> Result<Arc<dyn Vm>, VmmError> {
        let inner = Arc::clone(&self.inner);
        let name = plan.name.clone();
        self.start("launch", name, async move { inner.launch(plan).await })
            .await
    }

    async fn restore(&self, plan: RestorePlan) -> Result<Arc<dyn Vm>, VmmError> {
        let inner = Arc::clone(&self.inner);
        let name = plan.name.clone();
        self.start("restore", name, async move { inner.restore(plan).await })
            .await
    }

    async fn adopt(&self, run_dir: &Path) -> Result<Option<Arc<dyn Vm>>, VmmError> {
        let found = self.parts.step("adopt", self.inner.adopt(run_dir)).await?;
        let instance = run_dir.parent().unwrap().file_name().unwrap();
        let name = instance.to_str().unwrap();
        Ok(found.map(|vm| self.parts.wrap(name, vm)))
    }

    fn templates(&self) -> Option<&dyn Templates> {
        Some(self)
    }
}

#[async_trait]
impl Templates for GatedDriver {
    async fn hold(&self, image_dir: &Path) -> Result<Box<dyn TemplateHold>, VmmError> {
        let templates = self.inner.templates().unwrap();
        self.parts.step("hold", templates.hold(image_dir)).await
    }
}

struct GatedVm {
    inner: Arc<dyn Vm>,
    name: String,
    parts: Parts,
}

#[async_trait]
impl Vm for GatedVm {
    fn process(&self) -> ProcessId {
        self.inner.process()
    }

    async fn status(&self) -> Result<VmStatus, VmmError> {
        match self.parts.machines.pretence(&self.name) {
            None | Some(Pretence::DiesWhenWaitedFor) => self.inner.status().await,
            Some(Pretence::Status(status)) => Ok(status),
            Some(Pretence::Silent) => Err(VmmError::Timeout {
                what: "query-status",
                after: Duration::from_millis(500),
            }),
        }
    }

    async fn resume(&self) -> Result<(), VmmError> {
        self.parts.step("resume", self.inner.resume()).await
    }

    async fn pause(&self) -> Result<(), VmmError> {
        self.parts.step("pause", self.inner.pause()).await
    }

    async fn quit(&self) -> Result<(), VmmError> {
        self.parts.step("quit", self.inner.quit()).await
    }

    async fn kill(&self) -> Result<(), VmmError> {
        self.parts.step("kill", self.inner.kill()).await
    }

    async fn exited(&self) -> ExitReason {
        self.inner.exited().await
    }

    async fn powered_off(&self) {
        if self.parts.machines.pretence(&self.name) == Some(Pretence::DiesWhenWaitedFor) {
            self.inner.kill().await.unwrap();
        }
        self.inner.powered_off().await;
    }

    async fn dial(&self, deadline: Duration) -> Result<GuestStream, VmmError> {
        self.parts.step("dial", self.inner.dial(deadline)).await
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        Some(self)
    }

    fn memory(&self) -> Option<&dyn MemoryReport> {
        self.inner.memory()
    }

    fn mapped_ram(&self) -> Option<&dyn MappedRam> {
        self.inner.mapped_ram()
    }
}

#[async_trait]
impl Snapshots for GatedVm {
    async fn capture(&self, draft: &mut Draft) -> Result<Captured, VmmError> {
        let snapshots = self.inner.snapshots().unwrap();
        self.parts.step("capture", snapshots.capture(draft)).await
    }
}
