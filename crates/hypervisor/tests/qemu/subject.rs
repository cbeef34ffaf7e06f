//! QEMU as the subject of the suite.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use hypervisor::conformance::{Ask, Place, Subject};
use hypervisor::qemu::{AccelChoice, MachineChoice, QemuConfig, QemuDriver};
use hypervisor::{Driver, KernelFiles, Nic, Vm, disk};
use memory::{Loader, Verified};

use crate::network::Network;
use crate::scratch::Scratch;
use crate::{LAUNCH, agent};

pub(crate) const DISK_BYTES: u64 = 512 << 20;

pub(crate) struct Qemu {
    assets: PathBuf,
    scratch: Scratch,
    base_disk: PathBuf,
    pub(crate) machine: MachineChoice,
    /// User that the VMMs run as.
    pub(crate) vmm_uid: Option<u32>,
    /// Made when it is asked for.
    network: OnceLock<Option<Network>>,
}

impl Qemu {
    pub(crate) fn new(assets: PathBuf) -> Self {
        let scratch = Scratch::new();
        let base_disk = scratch.path().join("base");
        disk::format_ext4(&base_disk, DISK_BYTES).unwrap();
        Self {
            assets,
            scratch,
            base_disk,
            machine: MachineChoice::Microvm,
            vmm_uid: None,
            network: OnceLock::new(),
        }
    }

    /// The same assets, in a directory of its own.
    pub(crate) fn another(&self) -> Self {
        Self::new(self.assets.clone())
    }

    /// `None` where none can be made.
    pub(crate) fn network(&self) -> Option<&Network> {
        self.network.get_or_init(Network::make).as_ref()
    }

    fn dir(&self) -> &Path {
        self.scratch.path()
    }

    pub(crate) async fn driver_with(
        &self,
        machine: MachineChoice,
        loader: Arc<Loader>,
    ) -> QemuDriver {
        let program = std::env::current_exe()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let config = QemuConfig {
            qemu: None,
            launcher: vec![program, LAUNCH.into()],
            accel: AccelChoice::Tcg,
            machine,
            vmm_uid: self.vmm_uid,
            probe_kernel: None,
            verdict_cache: None,
        };
        QemuDriver::new(config, loader).await.unwrap()
    }

    pub(crate) fn config(&self, launcher: Vec<String>) -> QemuConfig {
        QemuConfig {
            qemu: None,
            launcher,
            accel: AccelChoice::Auto,
            machine: MachineChoice::Microvm,
            vmm_uid: None,
            probe_kernel: Some(self.kernel().kernel),
            verdict_cache: Some(self.dir().join("kvm.json")),
        }
    }
}

#[async_trait]
impl Subject for Qemu {
    async fn driver(&self) -> Arc<dyn Driver> {
        Arc::new(self.driver_with(self.machine, Arc::default()).await)
    }

    async fn other_driver(&self) -> (Arc<dyn Driver>, &'static str) {
        let other = match self.machine {
            MachineChoice::Microvm => MachineChoice::Q35,
            MachineChoice::Q35 => MachineChoice::Microvm,
        };
        (
            Arc::new(self.driver_with(other, Arc::default()).await),
            "vmm.machine",
        )
    }

    fn verified(&self) -> Verified {
        Verified::default()
    }

    fn scratch(&self) -> PathBuf {
        self.scratch.next()
    }

    fn kernel(&self) -> KernelFiles {
        let path = |name| self.assets.join("boot/current").join(name);
        KernelFiles {
            kernel: path("kernel"),
            initrd: path("initrd"),
            cmdline_extra: String::new(),
        }
    }

    fn root(&self) -> PathBuf {
        self.assets.join("root.erofs")
    }

    fn ram_bytes(&self) -> u64 {
        256 << 20
    }

    fn disk_bytes(&self) -> u64 {
        DISK_BYTES
    }

    fn make_base_disk(&self, path: &Path) {
        std::fs::hard_link(&self.base_disk, path).unwrap();
    }

    async fn first_contact(&self, vm: &dyn Vm) {
        agent::start(vm).await;
    }

    async fn ask(&self, vm: &dyn Vm, question: &Ask) -> String {
        let dir = |place: &Place| match place {
            Place::Ram => "/dev/shm/words",
            Place::Disk => "/words",
        };
        match question {
            Ask::Put(place, name, word) => {
                let dir = dir(place);
                agent::shell(
                    vm,
                    &format!("mkdir -p {dir}; printf '%s' '{word}' > {dir}/{name}; sync"),
                )
                .await
            }
            Ask::Get(place, name) => {
                let dir = dir(place);
                agent::shell(vm, &format!("test ! -e {dir}/{name} || cat {dir}/{name}")).await
            }
            Ask::PowerOff => {
                agent::power_off(vm).await;
                String::new()
            }
        }
    }

    fn nic(&self) -> Option<Nic> {
        self.network().map(Network::nic)
    }

    /// A fork that answers a few commands writes 3 MB.
    fn most_diff_bytes(&self) -> u64 {
        16 << 20
    }
}
