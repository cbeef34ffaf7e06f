//! Firecracker as the subject of the suite.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use hypervisor::Driver;
use hypervisor::conformance::{Guest, Subject};
use hypervisor::firecracker::{
    FirecrackerConfig, FirecrackerDriver, JailConfig, shmem_keeps_pages_apart,
};
use memory::Loader;

use crate::LAUNCH;
use crate::probe::Probe;

/// Users of jailed machines, which nobody has.
pub(crate) const UIDS: std::ops::Range<u32> = 612_000..612_064;

pub(crate) struct Firecracker {
    pub(crate) guest: Probe,
    jailed: bool,
}

impl Firecracker {
    pub(crate) fn new(assets: &Path) -> Self {
        Self {
            guest: Probe::new(assets, 1),
            jailed: false,
        }
    }

    /// With machines in jails.
    pub(crate) fn jailed(assets: &Path) -> Self {
        Self {
            jailed: true,
            ..Self::new(assets)
        }
    }

    /// With machines of two processors.
    pub(crate) fn with_two_vcpus(assets: &Path) -> Self {
        Self {
            guest: Probe::new(assets, 2),
            jailed: false,
        }
    }

    fn config(&self, program: PathBuf) -> FirecrackerConfig {
        let own = std::env::current_exe().unwrap();
        FirecrackerConfig {
            firecracker: Some(program),
            launcher: vec![own.to_string_lossy().into_owned(), LAUNCH.into()],
            start_deadline: FirecrackerConfig::START_DEADLINE,
            jail: self.jailed.then(|| JailConfig {
                jailer: self.guest.assets.join("firecracker/jailer"),
                uids: UIDS,
                cgroup_version: if has_cgroup2() { 2 } else { 1 },
                cgroups: vec![format!("{}=200", self.cgroup_file())],
            }),
        }
    }

    /// Times that pagers are lost: many for plain machines, as the others differ little from them.
    pub(crate) fn losses(&self) -> u64 {
        if self.jailed || self.guest.vcpus > 1 {
            8
        } else {
            50
        }
    }

    /// A limit that either version of control groups has.
    pub(crate) fn cgroup_file(&self) -> &'static str {
        if has_cgroup2() {
            "cpu.weight"
        } else {
            "cpu.shares"
        }
    }

    /// The real program.
    pub(crate) fn real(&self) -> FirecrackerConfig {
        self.config(self.guest.assets.join("firecracker/firecracker"))
    }

    async fn new_driver(&self) -> FirecrackerDriver {
        FirecrackerDriver::new(self.real(), Arc::new(Loader::default()))
            .await
            .unwrap()
    }
}

#[async_trait]
impl Subject for Firecracker {
    async fn driver(&self) -> Arc<dyn Driver> {
        Arc::new(self.new_driver().await)
    }

    /// A program that only says another version: an image is refused before anything is started.
    async fn other_driver(&self) -> (Arc<dyn Driver>, &'static str) {
        let program = self.guest.scratch.next().join("firecracker");
        std::fs::write(&program, "#!/bin/sh\necho Firecracker v1.12.0\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let driver = FirecrackerDriver::new(self.config(program), Arc::default());
        (Arc::new(driver.await.unwrap()), "vmm.version")
    }

    fn guest(&self) -> &dyn Guest {
        &self.guest
    }

    fn saves_all(&self) -> bool {
        !shmem_keeps_pages_apart()
    }
}

fn has_cgroup2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}
