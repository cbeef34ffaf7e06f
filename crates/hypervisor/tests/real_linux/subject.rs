//! Firecracker with Linux in it as the subject of the suite.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use hypervisor::Driver;
use hypervisor::conformance::{Guest, Subject};
use hypervisor::firecracker::{FirecrackerConfig, FirecrackerDriver, shmem_keeps_pages_apart};

use crate::LAUNCH;
use crate::linux::Linux;

pub(crate) struct Firecracker {
    guest: Linux,
}

impl Firecracker {
    pub(crate) fn new(assets: &Path) -> Self {
        Self {
            guest: Linux::new(assets, "vmlinux"),
        }
    }

    async fn driver_of(&self, program: PathBuf) -> FirecrackerDriver {
        let own = std::env::current_exe().unwrap();
        let config = FirecrackerConfig {
            firecracker: Some(program),
            launcher: vec![own.to_string_lossy().into_owned(), LAUNCH.into()],
            start_deadline: FirecrackerConfig::START_DEADLINE,
            jail: None,
        };
        FirecrackerDriver::new(config, Arc::default())
            .await
            .unwrap()
    }
}

#[async_trait]
impl Subject for Firecracker {
    async fn driver(&self) -> Arc<dyn Driver> {
        let program = self.guest.assets.join("firecracker/firecracker");
        Arc::new(self.driver_of(program).await)
    }

    /// A program that only says another version: an image is refused before anything is started.
    async fn other_driver(&self) -> (Arc<dyn Driver>, &'static str) {
        let program = self.guest.scratch.next().join("firecracker");
        std::fs::write(&program, "#!/bin/sh\necho Firecracker v1.12.0\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        (Arc::new(self.driver_of(program).await), "vmm.version")
    }

    fn guest(&self) -> &dyn Guest {
        &self.guest
    }

    fn saves_all(&self) -> bool {
        !shmem_keeps_pages_apart()
    }
}
