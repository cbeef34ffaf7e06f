//! What outlives a daemon: the data directory, the machines, the network.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use daemon::instances::{BootFiles, Layout, PagerPolicy};
use daemon::store::{ImageRecord, Store};
use hypervisor::Driver;
use hypervisor::firecracker::{FirecrackerConfig, FirecrackerDriver, JailConfig, KvmAccess};
use hypervisor::qemu::{AccelChoice, MachineChoice, QemuConfig, QemuDriver};
use memory::Loader;
use model::{BackendWish, ByteSize, Compression, InstanceSpec, NetworkSpec, UnixMillis};

use crate::LAUNCH;
use crate::networks::Network;
use crate::played::{Guests, Played};
use crate::probe::RAM_BYTES;
use crate::scratch::Scratch;

/// The image that instances are made of.
const IMAGE: &str = "docker.io/library/probe:latest";
const DIGEST: &str = "sha256:3333333333333333333333333333333333333333333333333333333333333333";

/// First user of jailed machines, and how many a test has: others have others, and nobody else has them.
const FIRST_UID: u32 = 620_000;
const UIDS: u32 = 64;

/// Pagers for what needs them, for no longer than that.
pub(crate) const PAGING: PagerPolicy = PagerPolicy {
    backend: BackendWish::Auto,
    graduate_after: None,
    graduate_rate: 1 << 30,
    linger: Duration::ZERO,
    record_for: Duration::from_secs(3600),
};

/// A VMM as the daemon drives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vmm {
    Firecracker,
    JailedFirecracker,
    QemuKvm,
}

impl Vmm {
    /// In names of tests.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Firecracker => "firecracker",
            Self::JailedFirecracker => "jailed_firecracker",
            Self::QemuKvm => "qemu_kvm",
        }
    }

    /// In requests and records.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Firecracker | Self::JailedFirecracker => "firecracker",
            Self::QemuKvm => "qemu",
        }
    }

    /// Whether its machines take their memory from pagers.
    pub(crate) fn has_pagers(self) -> bool {
        self != Self::QemuKvm
    }

    /// Why it cannot be tested here.
    pub(crate) fn lacks(self, assets: &Path) -> Option<&'static str> {
        let kvm = KvmAccess::find();
        if kvm != KvmAccess::Usable {
            return Some(kvm.explain());
        }
        let has_firecracker = assets.join("firecracker/firecracker").is_file();
        match self {
            Self::Firecracker | Self::JailedFirecracker if !has_firecracker => {
                Some("there is no Firecracker among the assets")
            }
            Self::JailedFirecracker if !rustix::process::geteuid().is_root() => {
                Some("only root can put machines into jails")
            }
            Self::QemuKvm => {
                let version = std::process::Command::new("qemu-system-x86_64")
                    .arg("--version")
                    .output();
                version
                    .is_err()
                    .then_some("qemu-system-x86_64 is not installed")
            }
            Self::Firecracker | Self::JailedFirecracker => None,
        }
    }
}

pub(crate) struct Host {
    /// Ends what a failed test leaves running, before the network goes.
    _scratch: Scratch,
    pub(crate) network: Network,
    pub(crate) layout: Layout,
    pub(crate) records: Arc<Store>,
    pub(crate) guests: Arc<Guests>,
    assets: PathBuf,
    pub(crate) vmms: &'static [Vmm],
    /// Processors of each machine.
    pub(crate) vcpus: u32,
    /// Whether instances are on the network.
    pub(crate) connected: bool,
    /// Forks that templates keep ready.
    pub(crate) warm: usize,
    /// What daemons want of pagers.
    pub(crate) paging: PagerPolicy,
    /// What daemons write memory images with.
    pub(crate) compression: Compression,
    /// Tells the programs of daemons apart.
    pub(crate) build: &'static str,
}

impl Host {
    pub(crate) fn new(assets: &Path, vmms: &'static [Vmm], vcpus: u32) -> Self {
        let scratch = Scratch::new();
        let layout = Layout::new(scratch.next());
        for dir in [layout.instances(), layout.boot()] {
            std::fs::create_dir_all(dir).unwrap();
        }
        // The guest has no use for it, but VMMs want one.
        std::fs::write(layout.boot().join("initrd"), [0; 1 << 16]).unwrap();
        let records = Arc::new(Store::open(&layout.database()).unwrap());
        place_image(&layout, &records);
        Self {
            _scratch: scratch,
            network: Network::new(),
            layout,
            records,
            guests: Arc::default(),
            assets: assets.to_path_buf(),
            vmms,
            vcpus,
            connected: rustix::process::geteuid().is_root(),
            warm: 0,
            paging: PAGING,
            compression: Compression::Off,
            build: "first",
        }
    }

    pub(crate) fn boot_files(&self) -> BootFiles {
        BootFiles {
            kernel: self.assets.join("probe.elf"),
            elf_kernel: Some(self.assets.join("probe.elf")),
            initrd: self.layout.boot().join("initrd"),
        }
    }

    /// An instance of this VMM to ask for.
    pub(crate) fn spec(&self, vmm: Vmm) -> InstanceSpec {
        InstanceSpec {
            image: IMAGE.to_owned(),
            image_digest: DIGEST.to_owned(),
            platform: "linux/amd64".to_owned(),
            hypervisor: vmm.name().to_owned(),
            size: ByteSize(RAM_BYTES),
            overlay_size: ByteSize::mib(16),
            vcpus: self.vcpus,
            env: Default::default(),
            tags: Default::default(),
            entrypoint: None,
            cmd: None,
            post_fork: None,
            memory: Default::default(),
            snapshots: Default::default(),
            network: NetworkSpec {
                enabled: self.connected,
                ..NetworkSpec::default()
            },
        }
    }

    /// A driver for one life of the daemon.
    pub(crate) async fn driver(&self, vmm: Vmm, loader: Arc<Loader>) -> Arc<dyn Driver> {
        let own = std::env::current_exe().unwrap();
        let launcher = vec![own.to_string_lossy().into_owned(), LAUNCH.into()];
        let inner: Arc<dyn Driver> = match vmm {
            Vmm::Firecracker | Vmm::JailedFirecracker => {
                let config = FirecrackerConfig {
                    firecracker: Some(self.firecracker()),
                    launcher,
                    start_deadline: FirecrackerConfig::START_DEADLINE,
                    jail: (vmm == Vmm::JailedFirecracker).then(|| self.jail()),
                };
                Arc::new(FirecrackerDriver::new(config, loader).await.unwrap())
            }
            Vmm::QemuKvm => {
                let config = QemuConfig {
                    qemu: None,
                    launcher,
                    accel: AccelChoice::Kvm,
                    machine: MachineChoice::Microvm,
                    vmm_uid: None,
                    // KVM is tried with the guest that is to run on it.
                    probe_kernel: Some(self.boot_files().kernel),
                    verdict_cache: Some(self.layout.kvm_verdict()),
                };
                Arc::new(QemuDriver::new(config, loader).await.unwrap())
            }
        };
        Arc::new(Played {
            inner,
            guests: Arc::clone(&self.guests),
        })
    }

    pub(crate) fn firecracker(&self) -> PathBuf {
        self.assets.join("firecracker/firecracker")
    }

    /// Of the image that instances are made of.
    pub(crate) fn root_disk(&self) -> PathBuf {
        root_disk(&self.layout)
    }

    fn jail(&self) -> JailConfig {
        let has_cgroup2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let first_uid = FIRST_UID + std::process::id() % 1000 * UIDS;
        JailConfig {
            jailer: self.assets.join("firecracker/jailer"),
            uids: first_uid..first_uid + UIDS,
            cgroup_version: if has_cgroup2 { 2 } else { 1 },
            cgroups: Vec::new(),
        }
    }
}

fn root_disk(layout: &Layout) -> PathBuf {
    let digest = DIGEST.trim_start_matches("sha256:");
    layout.images().join(digest).join("rootfs.erofs")
}

/// An image as an import leaves it, with a root disk that the guest does not read.
fn place_image(layout: &Layout, records: &Store) {
    let disk = root_disk(layout);
    std::fs::create_dir_all(disk.parent().unwrap()).unwrap();
    std::fs::write(disk, [0; 1 << 16]).unwrap();
    let record = ImageRecord {
        digest: DIGEST.to_owned(),
        platform: "linux/amd64".to_owned(),
        size_bytes: 1 << 16,
        rootfs_sha256: String::new(),
        entrypoint: vec!["/bin/program".to_owned()],
        cmd: Vec::new(),
        env: Vec::new(),
        working_dir: String::new(),
        user: String::new(),
        stop_signal: String::new(),
        labels: Default::default(),
        created_at: UnixMillis(0),
    };
    records.put_image(&record, &[IMAGE.to_owned()]).unwrap();
}
