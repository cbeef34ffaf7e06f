//! The driver: one per daemon, holding what all machines have in common.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use memory::{DiskFormat, Loader};

use super::calls::Place;
use super::config::FirecrackerConfig;
use super::host::{self, KvmAccess};
use super::jail::{JailConfig, Users};
use super::layout::LAYOUT;
use super::prepare::{prepare_launch, prepare_restore};
use super::start;
use super::version::FirecrackerVersion;
use super::vm::{FirecrackerVm, clean, open_run_dir, ram_descriptor};
use crate::launch::Launchers;
use crate::machine::{Record, RunDir, adopt_ram, hold, host_cpu, in_place};
use crate::process::{Process, RunMark};
use crate::{
    Driver, KernelFormat, LaunchPlan, Powers, RestorePlan, TemplateHold, Templates, Vm, VmStatus,
    VmmError, VmmIdentity, Wake,
};

/// Most CPUs that Firecracker gives to one guest.
const MAX_VCPUS: u32 = 32;

/// Runs machines with Firecracker.
#[derive(Debug)]
pub struct FirecrackerDriver {
    shared: Arc<Shared>,
}

/// What the blocking steps need.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) firecracker: PathBuf,
    pub(super) version: FirecrackerVersion,
    pub(super) launchers: Launchers,
    pub(super) identity: VmmIdentity,
    pub(super) boot_id: String,
    pub(super) loader: Arc<Loader>,
    pub(super) start_deadline: Duration,
    pub(super) jail: Option<(JailConfig, Users)>,
}

impl Shared {
    pub(super) fn place(&self) -> Place {
        match self.jail {
            Some(_) => Place::Jail,
            None => Place::Host,
        }
    }
}

impl FirecrackerDriver {
    /// Finds Firecracker and KVM, and refuses to do without either. RAM of images goes through `loader`.
    pub async fn new(config: FirecrackerConfig, loader: Arc<Loader>) -> Result<Self, VmmError> {
        let report = host::probe(&config).await?;
        if report.kvm != KvmAccess::Usable {
            return Err(VmmError::unusable(report.kvm.explain()));
        }
        for warning in &report.warnings {
            tracing::warn!("{warning}");
        }
        let identity = VmmIdentity {
            name: "firecracker".into(),
            version: report.version.to_string(),
            accelerator: "kvm".into(),
            machine: format!("firecracker/{LAYOUT}"),
            cpu_model: host_cpu("host"),
        };
        let boot_id = crate::process::boot_id()
            .map_err(VmmError::io("read the boot id of", Path::new("/proc")))?;
        let shared = Shared {
            firecracker: report.firecracker,
            version: report.version,
            launchers: Launchers::new(config.launcher),
            identity,
            boot_id,
            loader,
            start_deadline: config.start_deadline,
            jail: config.jail.map(|jail| {
                let users = Users::new(jail.uids.clone());
                (jail, users)
            }),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }
}

#[async_trait]
impl Driver for FirecrackerDriver {
    fn identity(&self) -> &VmmIdentity {
        &self.shared.identity
    }

    fn powers(&self) -> Powers {
        Powers {
            snapshots: true,
            shared_memory: true,
            pager: true,
            disk: DiskFormat::Raw,
            kernel: KernelFormat::Elf,
            max_vcpus: MAX_VCPUS,
        }
    }

    async fn launch(&self, plan: LaunchPlan) -> Result<Arc<dyn Vm>, VmmError> {
        let shared = self.shared.as_ref();
        let spawned = in_place(|| start::spawn(shared, prepare_launch(shared, plan)?))?;
        let vm = start::finish(shared, spawned).await?;
        vm.learn(Some(VmStatus::Running));
        Ok(Arc::new(vm))
    }

    async fn restore(&self, plan: RestorePlan) -> Result<Arc<dyn Vm>, VmmError> {
        let shared = self.shared.as_ref();
        let wake = plan.wake;
        let spawned = in_place(|| start::spawn(shared, prepare_restore(shared, plan)?))?;
        let vm = start::finish(shared, spawned).await?;
        vm.learn(Some(match wake {
            Wake::Running => VmStatus::Running,
            Wake::Paused => VmStatus::Paused,
        }));
        Ok(Arc::new(vm))
    }

    async fn adopt(&self, run_dir: &Path) -> Result<Option<Arc<dyn Vm>>, VmmError> {
        let process = match RunMark::read(run_dir) {
            Some(id) => Process::open(id).map_err(VmmError::io("adopt the machine in", run_dir))?,
            None => None,
        };
        let Some(process) = process else {
            clean(run_dir, Record::read(run_dir).ok().as_ref());
            return Ok(None);
        };
        let record = Record::read_own(run_dir, &self.shared.identity.name)?;
        if record.jail_uid.is_none() {
            RunDir::drop_capture(run_dir);
        }
        let loaded = match record.base {
            Some(_) => adopt_ram(&self.shared.loader, process.id(), ram_descriptor(&record))?,
            None => None,
        };
        let run_dir = open_run_dir(run_dir, &record, process.id())?;
        let loader = Arc::clone(&self.shared.loader);
        let vm = FirecrackerVm::new(run_dir, process, record, loaded, loader);
        vm.follow_output();
        Ok(Some(Arc::new(vm)))
    }

    fn templates(&self) -> Option<&dyn Templates> {
        Some(self)
    }
}

#[async_trait]
impl Templates for FirecrackerDriver {
    async fn hold(&self, image_dir: &Path) -> Result<Box<dyn TemplateHold>, VmmError> {
        hold(&self.shared.loader, image_dir).await
    }
}
