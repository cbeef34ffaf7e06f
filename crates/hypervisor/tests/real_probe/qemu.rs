//! QEMU under KVM as the subject of the suite.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use hypervisor::conformance::{Ask, Subject};
use hypervisor::qemu::{AccelChoice, MachineChoice, QemuConfig, QemuDriver};
use hypervisor::{Driver, KernelFiles, Nic, Vm};
use memory::Verified;

use crate::LAUNCH;
use crate::network::Network;
use crate::probe::{self, Files};

pub(crate) struct Qemu {
    files: Files,
    /// Made when it is asked for.
    network: OnceLock<Option<Network>>,
    vcpus: u32,
}

impl Qemu {
    pub(crate) fn new(assets: &Path) -> Self {
        Self {
            files: Files::new(assets),
            network: OnceLock::new(),
            vcpus: 1,
        }
    }

    /// With machines of two processors.
    pub(crate) fn with_two_vcpus(assets: &Path) -> Self {
        Self {
            vcpus: 2,
            ..Self::new(assets)
        }
    }

    async fn new_driver(&self, machine: MachineChoice) -> Arc<dyn Driver> {
        let own = std::env::current_exe().unwrap();
        let config = QemuConfig {
            qemu: None,
            launcher: vec![own.to_string_lossy().into_owned(), LAUNCH.into()],
            accel: AccelChoice::Kvm,
            machine,
            vmm_uid: None,
            // KVM is tried with the guest that is to run on it.
            probe_kernel: Some(self.files.kernel().kernel),
            verdict_cache: Some(self.files.scratch.path().join("kvm.json")),
        };
        Arc::new(QemuDriver::new(config, Arc::default()).await.unwrap())
    }
}

#[async_trait]
impl Subject for Qemu {
    async fn driver(&self) -> Arc<dyn Driver> {
        self.new_driver(MachineChoice::Microvm).await
    }

    async fn other_driver(&self) -> (Arc<dyn Driver>, &'static str) {
        (self.new_driver(MachineChoice::Q35).await, "vmm.machine")
    }

    fn verified(&self) -> Verified {
        Verified::default()
    }

    fn scratch(&self) -> PathBuf {
        self.files.scratch.next()
    }

    fn kernel(&self) -> KernelFiles {
        self.files.kernel()
    }

    fn root(&self) -> PathBuf {
        self.files.root()
    }

    fn vcpus(&self) -> u32 {
        self.vcpus
    }

    fn ram_bytes(&self) -> u64 {
        probe::RAM_BYTES
    }

    fn disk_bytes(&self) -> u64 {
        probe::DISK_BYTES
    }

    fn make_base_disk(&self, path: &Path) {
        probe::make_disk(path);
    }

    async fn first_contact(&self, vm: &dyn Vm) {
        probe::settle(vm, self.vcpus).await;
    }

    async fn ask(&self, vm: &dyn Vm, question: &Ask) -> String {
        probe::ask(vm, self.vcpus, question).await
    }

    fn nic(&self) -> Option<Nic> {
        let network = self.network.get_or_init(Network::make);
        network.as_ref().map(Network::nic)
    }

    /// A fork that answers a few commands writes some 20 pages.
    fn most_diff_bytes(&self) -> u64 {
        1 << 20
    }
}
