//! QEMU under KVM as the subject of the suite.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use hypervisor::Driver;
use hypervisor::conformance::{Guest, Subject};
use hypervisor::qemu::{AccelChoice, MachineChoice, QemuConfig, QemuDriver};

use crate::LAUNCH;
use crate::probe::Probe;

pub(crate) struct Qemu {
    guest: Probe,
}

impl Qemu {
    pub(crate) fn new(assets: &Path) -> Self {
        Self {
            guest: Probe::new(assets, 1),
        }
    }

    /// With machines of two processors.
    pub(crate) fn with_two_vcpus(assets: &Path) -> Self {
        Self {
            guest: Probe::new(assets, 2),
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
            probe_kernel: Some(self.guest.kernel().kernel),
            verdict_cache: Some(self.guest.scratch.path().join("kvm.json")),
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

    fn guest(&self) -> &dyn Guest {
        &self.guest
    }
}
