//! QEMU as the subject of the suite.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use hypervisor::conformance::{Ask, Place, Subject};
use hypervisor::qemu::{AccelChoice, MachineChoice, QemuConfig, QemuDriver};
use hypervisor::{Driver, KernelFiles, Nic, Vm, disk};
use memory::{Loader, Verified};
use tempfile::TempDir;

use crate::network::Network;
use crate::{LAUNCH, agent};

pub(crate) const DISK_BYTES: u64 = 512 << 20;

pub(crate) struct Qemu {
    assets: PathBuf,
    /// Taken when it is kept for a look at what failed.
    dir: Option<TempDir>,
    base_disk: PathBuf,
    made: AtomicUsize,
    pub(crate) machine: MachineChoice,
    /// User that the VMMs run as.
    pub(crate) vmm_uid: Option<u32>,
    /// Made when it is asked for.
    network: OnceLock<Option<Network>>,
}

impl Qemu {
    pub(crate) fn new(assets: PathBuf) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // VMMs of other users must reach their files.
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let base_disk = dir.path().join("base");
        disk::format_ext4(&base_disk, DISK_BYTES).unwrap();
        Self {
            assets,
            dir: Some(dir),
            base_disk,
            made: AtomicUsize::new(0),
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
        self.dir.as_ref().unwrap().path()
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

/// Machines outlive their handles, so a scenario that fails leaves some.
impl Drop for Qemu {
    fn drop(&mut self) {
        for mark in find(self.dir(), "vmm.pid") {
            let text = std::fs::read_to_string(mark).unwrap_or_default();
            let mark: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let pid = mark["pid"].as_i64().unwrap_or_default();
            let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            if cwd.starts_with(self.dir())
                && let Some(pid) =
                    rustix::process::Pid::from_raw(i32::try_from(pid).unwrap_or_default())
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            println!("kept: {}", dir.keep().display());
        }
    }
}

fn find(dir: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(find(&entry.path(), name));
        } else if entry.file_name() == name {
            found.push(entry.path());
        }
    }
    found
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
        let dir = self
            .dir()
            .join(self.made.fetch_add(1, Ordering::Relaxed).to_string());
        std::fs::create_dir(&dir).unwrap();
        dir
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
