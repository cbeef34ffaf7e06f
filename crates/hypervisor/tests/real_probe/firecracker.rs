//! Firecracker as the subject of the suite.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use hypervisor::conformance::{Ask, Subject};
use hypervisor::firecracker::{FirecrackerConfig, FirecrackerDriver, JailConfig};
use hypervisor::{Driver, KernelFiles, Nic, Vm};
use memory::{Loader, Verified};

use crate::LAUNCH;
use crate::network::Network;
use crate::probe::{self, Files};

/// Users of jailed machines, which nobody has.
pub(crate) const UIDS: std::ops::Range<u32> = 612_000..612_064;

pub(crate) struct Firecracker {
    pub(crate) files: Files,
    /// Made when it is asked for.
    network: OnceLock<Option<Network>>,
    pub(crate) vcpus: u32,
    jailed: bool,
}

impl Firecracker {
    pub(crate) fn new(assets: &Path) -> Self {
        Self {
            files: Files::new(assets),
            network: OnceLock::new(),
            vcpus: 1,
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
            vcpus: 2,
            ..Self::new(assets)
        }
    }

    fn config(&self, program: PathBuf) -> FirecrackerConfig {
        let own = std::env::current_exe().unwrap();
        FirecrackerConfig {
            firecracker: Some(program),
            launcher: vec![own.to_string_lossy().into_owned(), LAUNCH.into()],
            start_deadline: FirecrackerConfig::START_DEADLINE,
            jail: self.jailed.then(|| JailConfig {
                jailer: self.files.assets.join("firecracker/jailer"),
                uids: UIDS,
                cgroup_version: if has_cgroup2() { 2 } else { 1 },
                cgroups: vec![format!("{}=200", self.cgroup_file())],
            }),
        }
    }

    /// Times that pagers are lost: many for plain machines, as the others differ little from them.
    pub(crate) fn losses(&self) -> u64 {
        if self.jailed || self.vcpus > 1 { 8 } else { 50 }
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
        self.config(self.files.assets.join("firecracker/firecracker"))
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
        let program = self.files.scratch.next().join("firecracker");
        std::fs::write(&program, "#!/bin/sh\necho Firecracker v1.12.0\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let driver = FirecrackerDriver::new(self.config(program), Arc::default());
        (Arc::new(driver.await.unwrap()), "vmm.version")
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

fn has_cgroup2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}
