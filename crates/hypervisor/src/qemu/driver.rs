//! The driver: one per daemon, holding what all machines have in common.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use memory::{DiskFormat, Loader};

use super::command::{Model, RAM_FD};
use super::config::QemuConfig;
use super::host::{self, Choice};
use super::prepare::{prepare_launch, prepare_restore};
use super::vm::{QemuVm, SOCKETS};
use super::{start, sys};
use crate::launch::Launchers;
use crate::machine::{Record, RunDir, adopt_ram, blocking, hold};
use crate::process::{Process, RunMark};
use crate::{
    Driver, KernelFormat, LaunchPlan, Powers, RestorePlan, TemplateHold, Templates, Vm, VmmError,
    VmmIdentity,
};

/// Most CPUs that one guest may have; more were never tested.
const MAX_VCPUS: u32 = 16;

/// Runs machines with QEMU.
#[derive(Debug)]
pub struct QemuDriver {
    shared: Arc<Shared>,
}

/// What the blocking steps need.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) qemu: PathBuf,
    pub(super) launchers: Launchers,
    pub(super) vmm_uid: Option<u32>,
    pub(super) model: Model,
    pub(super) identity: VmmIdentity,
    pub(super) tsc_khz: u64,
    pub(super) boot_id: String,
    pub(super) loader: Arc<Loader>,
}

impl QemuDriver {
    /// Finds QEMU and decides on the accelerator, which can take some seconds the first time on a host (see
    /// [`super::probe`]). RAM of images goes through `loader`.
    pub async fn new(config: QemuConfig, loader: Arc<Loader>) -> Result<Self, VmmError> {
        let Choice {
            qemu,
            version,
            accel,
            cpu,
        } = host::choose(&config).await?;
        let model = Model {
            machine: config.machine,
            accel,
            cpu,
            major: version.numbers.0,
        };
        let identity = VmmIdentity {
            name: "qemu".into(),
            version: version.to_string(),
            accelerator: accel.name().into(),
            machine: model.machine_name(),
            cpu_model: host::cpu_model(cpu, accel),
        };
        let boot_id = crate::process::boot_id()
            .map_err(VmmError::io("read the boot id of", Path::new("/proc")))?;
        let tsc_khz = blocking(|| Ok(sys::tsc_khz())).await?;
        let QemuConfig {
            launcher, vmm_uid, ..
        } = config;
        let shared = Shared {
            qemu,
            launchers: Launchers::new(launcher),
            vmm_uid,
            model,
            identity,
            tsc_khz,
            boot_id,
            loader,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }
}

#[async_trait]
impl Driver for QemuDriver {
    fn identity(&self) -> &VmmIdentity {
        &self.shared.identity
    }

    fn powers(&self) -> Powers {
        Powers {
            snapshots: true,
            shared_memory: true,
            pager: false,
            disk: DiskFormat::Qcow2,
            kernel: KernelFormat::Bzimage,
            max_vcpus: MAX_VCPUS,
        }
    }

    async fn launch(&self, plan: LaunchPlan) -> Result<Arc<dyn Vm>, VmmError> {
        let shared = Arc::clone(&self.shared);
        let spawned =
            blocking(move || start::spawn(&shared, prepare_launch(&shared, plan)?)).await?;
        Ok(Arc::new(start::finish_launch(spawned).await?))
    }

    async fn restore(&self, plan: RestorePlan) -> Result<Arc<dyn Vm>, VmmError> {
        let shared = Arc::clone(&self.shared);
        let wake = plan.wake;
        let spawned =
            blocking(move || start::spawn(&shared, prepare_restore(&shared, plan)?)).await?;
        Ok(Arc::new(
            start::finish_restore(spawned, wake, &self.shared.loader).await?,
        ))
    }

    async fn adopt(&self, run_dir: &Path) -> Result<Option<Arc<dyn Vm>>, VmmError> {
        let process = match RunMark::read(run_dir) {
            Some(id) => Process::open(id).map_err(VmmError::io("adopt the machine in", run_dir))?,
            None => None,
        };
        let Some(process) = process else {
            RunDir::clean(run_dir, &SOCKETS);
            return Ok(None);
        };
        let record = Record::read_own(run_dir, &self.shared.identity.name)?;
        if self.shared.vmm_uid.is_some() {
            start::keep(run_dir)?;
        }
        RunDir::drop_capture(run_dir);
        let loaded = match record.base {
            Some(_) => adopt_ram(&self.shared.loader, process.id(), RAM_FD)?,
            None => None,
        };
        Ok(Some(Arc::new(QemuVm::new(
            RunDir::open(run_dir)?,
            process,
            record,
            loaded,
        ))))
    }

    fn templates(&self) -> Option<&dyn Templates> {
        Some(self)
    }
}

#[async_trait]
impl Templates for QemuDriver {
    async fn hold(&self, image_dir: &Path) -> Result<Box<dyn TemplateHold>, VmmError> {
        hold(&self.shared.loader, image_dir).await
    }
}
