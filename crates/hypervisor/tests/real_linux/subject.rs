//! Firecracker with Linux in it as the subject of the suite.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use hypervisor::conformance::{Ask, Place, Subject};
use hypervisor::firecracker::{FirecrackerConfig, FirecrackerDriver};
use hypervisor::{Driver, KernelFiles, Nic, Vm, disk};
use memory::Verified;

use crate::network::Network;
use crate::scratch::Scratch;
use crate::{LAUNCH, agent};

const DISK_BYTES: u64 = 512 << 20;

pub(crate) struct Firecracker {
    assets: PathBuf,
    scratch: Scratch,
    base_disk: PathBuf,
    /// Made when it is asked for.
    network: OnceLock<Option<Network>>,
}

impl Firecracker {
    pub(crate) fn new(assets: &Path) -> Self {
        let scratch = Scratch::new();
        let base_disk = scratch.path().join("base");
        disk::format_ext4(&base_disk, DISK_BYTES).unwrap();
        Self {
            assets: assets.to_owned(),
            scratch,
            base_disk,
            network: OnceLock::new(),
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
        let program = self.assets.join("firecracker/firecracker");
        Arc::new(self.driver_of(program).await)
    }

    /// A program that only says another version: an image is refused before anything is started.
    async fn other_driver(&self) -> (Arc<dyn Driver>, &'static str) {
        let program = self.scratch.next().join("firecracker");
        std::fs::write(&program, "#!/bin/sh\necho Firecracker v1.12.0\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        (Arc::new(self.driver_of(program).await), "vmm.version")
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
            kernel: path("vmlinux"),
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
        let script = match question {
            Ask::Put(place, name, word) => {
                let dir = dir(place);
                format!("mkdir -p {dir}; printf '%s' '{word}' > {dir}/{name}; sync")
            }
            Ask::Get(place, name) => {
                let dir = dir(place);
                format!("test ! -e {dir}/{name} || cat {dir}/{name}")
            }
            Ask::PowerOff => {
                agent::power_off(vm).await;
                return String::new();
            }
        };
        agent::shell(vm, &script).await
    }

    fn nic(&self) -> Option<Nic> {
        let network = self.network.get_or_init(Network::make);
        network.as_ref().map(Network::nic)
    }

    /// A fork that answers a few commands writes 3 MB.
    fn most_diff_bytes(&self) -> u64 {
        16 << 20
    }
}
