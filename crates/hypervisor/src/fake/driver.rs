//! The driver.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use memory::{Image, LoadedRam, Loader, MachineFacts};
use tokio::sync::watch;

use super::guest::{FakeHardware, GuestMaker, PowerSwitch};
use super::hooks::Operation;
use super::host::FakeHost;
use super::machine::{Base, Condition, Machine};
use super::memory_image;
use super::paged::hand_over;
use super::vm::FakeVm;
use crate::{
    DiskFile, DiskFormat, Driver, KernelFormat, LaunchPlan, MemoryBackend, Nic, Powers, RamUse,
    RestorePlan, TemplateHold, Templates, Vm, VmmError, VmmIdentity, Wake, nic,
};

/// File in the run directory that tells of a machine, like the mark of a real one.
pub(super) const MARK: &str = "fake.pid";

/// Drives fake machines on a [`FakeHost`].
pub struct FakeDriver {
    host: FakeHost,
    guests: Arc<dyn GuestMaker>,
    loader: Arc<Loader>,
    identity: VmmIdentity,
    disk: DiskFormat,
    pager: bool,
    saving_hangs_up: bool,
}

impl FakeDriver {
    /// A driver on `host`; machines that run there can be adopted.
    #[must_use]
    pub fn new(host: FakeHost, guests: Arc<dyn GuestMaker>, loader: Arc<Loader>) -> Self {
        let identity = VmmIdentity {
            name: "fake".into(),
            version: "1".into(),
            accelerator: "none".into(),
            machine: "fake/1".into(),
            cpu_model: "none".into(),
        };
        Self {
            host,
            guests,
            loader,
            identity,
            disk: DiskFormat::Qcow2,
            pager: false,
            saving_hangs_up: false,
        }
    }

    /// The driver of another VMM, one whose machines write to disks of this format. Drivers of
    /// several names may share a host; each knows its own machines.
    #[must_use]
    pub fn of_kind(mut self, name: &str, disk: DiskFormat) -> Self {
        name.clone_into(&mut self.identity.name);
        self.disk = disk;
        self
    }

    /// The same driver with another version, as after an upgrade of the VMM.
    #[must_use]
    pub fn with_version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.identity.version);
        self
    }

    /// The driver of a VMM whose machines can get their memory from a pager.
    #[must_use]
    pub fn with_pager(mut self) -> Self {
        self.pager = true;
        self
    }

    /// The driver of a VMM whose machines lose their connections when they are saved.
    #[must_use]
    pub fn that_hangs_up(mut self) -> Self {
        self.saving_hangs_up = true;
        self
    }

    fn vm(&self, machine: Arc<Machine>) -> Arc<dyn Vm> {
        Arc::new(FakeVm {
            machine,
            host: self.host.clone(),
            loader: Arc::clone(&self.loader),
            saving_hangs_up: self.saving_hangs_up,
        })
    }

    fn start(
        &self,
        hardware: impl FnOnce(PowerSwitch) -> FakeHardware,
        facts: MachineFacts,
        base: Option<Base>,
        run_dir: &Path,
        ram: Option<&[u8]>,
        condition: Condition,
    ) -> Result<Arc<Machine>, VmmError> {
        let (condition, _) = watch::channel(condition);
        let guest = self.guests.make(hardware(PowerSwitch {
            condition: condition.clone(),
        }));
        if let Some(ram) = ram {
            guest.load(ram);
        }
        let process = self.host.next_process();
        let mark = run_dir.join(MARK);
        std::fs::write(&mark, format!("{}\n", process.pid))
            .map_err(VmmError::io("write", &mark))?;
        let machine = Machine::start(
            process,
            facts,
            base,
            run_dir.to_path_buf(),
            guest,
            condition,
        );
        self.host.insert(run_dir, Arc::clone(&machine));
        Ok(machine)
    }

    fn check(&self, image: &Image, plan: &RestorePlan) -> Result<(), VmmError> {
        let (wanted, found) = (&image.manifest().machine, &self.identity);
        let verified = self.loader.verified();
        let root_sha256 = verified
            .sha256(&plan.root)
            .map_err(VmmError::io("read", &plan.root))?;
        let fields = [
            ("vmm.name", &wanted.vmm.name, &found.name),
            ("vmm.version", &wanted.vmm.version, &found.version),
            ("root_sha256", &wanted.root_sha256, &root_sha256),
        ];
        for (field, wanted, found) in fields {
            if wanted != found {
                return Err(VmmError::Mismatch {
                    field,
                    wanted: wanted.clone(),
                    found: found.clone(),
                });
            }
        }
        nic::check_fits(image.manifest().machine.nic.as_ref(), plan.nic.as_ref())?;
        image.verify_state_and_disks(verified)?;
        Ok(())
    }

    /// A chain of this format, of files that are there.
    fn check_disk(&self, chain: &[DiskFile]) -> Result<(), VmmError> {
        let alone = chain.len() == 1;
        match chain.last() {
            Some(top) if top.format == self.disk && (alone || self.disk == DiskFormat::Qcow2) => {}
            _ => {
                return Err(VmmError::unusable(format!(
                    "{} cannot write to such a disk: {chain:?}",
                    self.identity.name
                )));
            }
        }
        for file in chain {
            std::fs::metadata(&file.path).map_err(VmmError::io("open", &file.path))?;
        }
        Ok(())
    }
}

#[async_trait]
impl Driver for FakeDriver {
    fn identity(&self) -> &VmmIdentity {
        &self.identity
    }

    fn powers(&self) -> Powers {
        Powers {
            snapshots: true,
            shared_memory: true,
            pager: self.pager,
            disk: self.disk,
            kernel: match self.disk {
                DiskFormat::Qcow2 => KernelFormat::Bzimage,
                DiskFormat::Raw => KernelFormat::Elf,
            },
            max_vcpus: 16,
        }
    }

    async fn launch(&self, plan: LaunchPlan) -> Result<Arc<dyn Vm>, VmmError> {
        self.host.hooks().pass(Operation::Launch).await?;
        self.check_disk(&plan.disk)?;
        let verified = self.loader.verified();
        let digest = |path: &Path| verified.sha256(path).map_err(VmmError::io("read", path));
        let facts = MachineFacts {
            vmm: self.identity.clone(),
            vcpus: plan.machine.vcpus,
            ram_bytes: plan.machine.ram_bytes,
            cmdline: plan.kernel.cmdline_extra,
            kernel_sha256: digest(&plan.kernel.kernel)?,
            initrd_sha256: digest(&plan.kernel.initrd)?,
            root_sha256: digest(&plan.root)?,
            nic: plan.nic.as_ref().map(Nic::facts),
        };
        let ram_bytes = facts.ram_bytes;
        let hardware = |power| FakeHardware {
            name: plan.name,
            ram_bytes,
            disk: plan.disk,
            app_log: plan.logs.app,
            nic: plan.nic,
            power,
        };
        let machine = self.start(
            hardware,
            facts,
            None,
            &plan.run_dir,
            None,
            Condition::Running,
        )?;
        Ok(self.vm(machine))
    }

    async fn restore(&self, plan: RestorePlan) -> Result<Arc<dyn Vm>, VmmError> {
        self.host.hooks().pass(Operation::Restore).await?;
        let image = Image::open(&plan.image_dir)?;
        self.check(&image, &plan)?;
        self.check_disk(&plan.disk)?;
        let paged = match (&plan.memory, plan.ram) {
            (MemoryBackend::File, _) => None,
            (MemoryBackend::Pager { socket }, RamUse::Fork | RamUse::Own) if self.pager => {
                Some(hand_over(socket, &plan.name).await?)
            }
            (MemoryBackend::Pager { .. }, _) => {
                return Err(VmmError::unusable(
                    "such a machine takes its memory from files",
                ));
            }
        };
        let layers = image.manifest().layers.len();
        let (ram, base) = match plan.ram {
            RamUse::Copied => (
                memory_image::contents(&image, self.loader.copy(&image)?)?,
                None,
            ),
            RamUse::Fork | RamUse::Own => {
                let loaded = self.loader.load(&image, layers)?;
                let base = Base {
                    image_dir: plan.image_dir,
                    layers,
                    table: paged.is_none().then(Arc::default),
                };
                (memory_image::contents(&image, &*loaded)?, Some(base))
            }
        };
        let condition = match plan.wake {
            Wake::Running => Condition::Running,
            Wake::Paused => Condition::Paused,
        };
        let facts = image.manifest().machine.clone();
        let ram_bytes = facts.ram_bytes;
        let hardware = |power| FakeHardware {
            name: plan.name,
            ram_bytes,
            disk: plan.disk,
            app_log: plan.logs.app,
            nic: plan.nic,
            power,
        };
        let machine = self.start(hardware, facts, base, &plan.run_dir, Some(&ram), condition)?;
        if let Some(paged) = paged {
            tokio::spawn(paged.hold(machine.condition.subscribe()));
        }
        Ok(self.vm(machine))
    }

    async fn adopt(&self, run_dir: &Path) -> Result<Option<Arc<dyn Vm>>, VmmError> {
        self.host.hooks().pass(Operation::Adopt).await?;
        let Some(machine) = self.host.find(run_dir) else {
            // Usually there is none.
            let _ = std::fs::remove_file(run_dir.join(MARK));
            return Ok(None);
        };
        let owner = &machine.facts.vmm.name;
        if *owner == self.identity.name {
            Ok(Some(self.vm(machine)))
        } else {
            Err(VmmError::Foreign {
                owner: owner.clone(),
            })
        }
    }

    fn templates(&self) -> Option<&dyn Templates> {
        Some(self)
    }
}

#[async_trait]
impl Templates for FakeDriver {
    async fn hold(&self, image_dir: &Path) -> Result<Box<dyn TemplateHold>, VmmError> {
        self.host.hooks().pass(Operation::Hold).await?;
        let image = Image::open(image_dir)?;
        image.verify_state_and_disks(self.loader.verified())?;
        Ok(Box::new(Hold(
            self.loader.load(&image, image.manifest().layers.len())?,
        )))
    }
}

struct Hold(Arc<LoadedRam>);

impl TemplateHold for Hold {
    fn resident_bytes(&self) -> u64 {
        self.0.resident_bytes().unwrap_or(0)
    }
}
