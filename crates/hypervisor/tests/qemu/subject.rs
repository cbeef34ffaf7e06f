//! QEMU as the subject of the suite.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use hypervisor::Driver;
use hypervisor::conformance::{Guest, Subject};
use hypervisor::qemu::{AccelChoice, MachineChoice, QemuConfig, QemuDriver};
use memory::Loader;

use crate::LAUNCH;
use crate::linux::Linux;

pub(crate) struct Qemu {
    pub(crate) guest: Linux,
    pub(crate) machine: MachineChoice,
    /// User that the VMMs run as.
    pub(crate) vmm_uid: Option<u32>,
}

impl Qemu {
    pub(crate) fn new(assets: &Path) -> Self {
        Self {
            guest: Linux::new(assets, "kernel"),
            machine: MachineChoice::Microvm,
            vmm_uid: None,
        }
    }

    /// The same assets, in a directory of its own.
    pub(crate) fn another(&self) -> Self {
        Self::new(&self.guest.assets)
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
            probe_kernel: Some(self.guest.kernel().kernel),
            verdict_cache: Some(self.guest.scratch.path().join("kvm.json")),
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

    fn guest(&self) -> &dyn Guest {
        &self.guest
    }
}
