//! Linux as the guest of the suite: it remembers words in files.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use async_trait::async_trait;
use hypervisor::conformance::{Ask, Guest, Place};
use hypervisor::{KernelFiles, Nic, Vm, disk};

use crate::agent;
use crate::network::Network;
use crate::scratch::Scratch;

pub(crate) const DISK_BYTES: u64 = 512 << 20;

/// The assets that machines are made of, and where the tests' own files go.
pub(crate) struct Linux {
    pub(crate) assets: PathBuf,
    pub(crate) scratch: Scratch,
    kernel: &'static str,
    base_disk: PathBuf,
    /// Made when it is asked for.
    network: OnceLock<Option<Network>>,
}

impl Linux {
    /// Booted from the kernel of this name among the assets, for VMMs want it compressed or not.
    pub(crate) fn new(assets: &Path, kernel: &'static str) -> Self {
        let scratch = Scratch::new();
        let base_disk = scratch.path().join("base");
        disk::format_ext4(&base_disk, DISK_BYTES).unwrap();
        Self {
            assets: assets.to_owned(),
            scratch,
            kernel,
            base_disk,
            network: OnceLock::new(),
        }
    }

    /// `None` where none can be made.
    pub(crate) fn network(&self) -> Option<&Network> {
        self.network.get_or_init(Network::make).as_ref()
    }
}

#[async_trait]
impl Guest for Linux {
    fn scratch(&self) -> PathBuf {
        self.scratch.next()
    }

    fn kernel(&self) -> KernelFiles {
        let path = |name| self.assets.join("boot/current").join(name);
        KernelFiles {
            kernel: path(self.kernel),
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
        self.network().map(Network::nic)
    }

    /// A fork that answers a few commands writes 3 MB.
    fn most_diff_bytes(&self) -> u64 {
        16 << 20
    }
}
