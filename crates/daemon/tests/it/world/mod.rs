//! A host with a daemon that can be killed and started again.
//!
//! [`World`] is what outlives a daemon: the data directory and the machines. [`Daemon`]
//! is one life of the daemon, on a runtime of its own, so that ending it ends every one
//! of its tasks at whatever they are doing, as SIGKILL would.

mod daemon;
mod driver;
mod gate;
mod guests;
mod http;
mod look;
mod machines;
mod verbs;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::daemon::instances::{Layout, PagerPolicy, WarmPolicy};
use ::daemon::store::{ImageRecord, Store};
use hypervisor::fake::FakeHost;
use model::{BackendWish, Compression, UnixMillis};
use tempfile::TempDir;

pub(crate) use daemon::Daemon;
pub(crate) use gate::{Gate, When};
pub(crate) use http::{Answer, request};
pub(crate) use look::names;
pub(crate) use machines::{Machines, Pretence};
pub(crate) use pager::fake::{FakePagers, TOUCHED};
pub(crate) use verbs::PATIENCE;

/// Name of the image that every world has.
pub(crate) const IMAGE: &str = "docker.io/library/plain:latest";
/// Its digest.
pub(crate) const DIGEST: &str =
    "sha256:1111111111111111111111111111111111111111111111111111111111111111";
/// An image with a hook for forks.
pub(crate) const OTHER_IMAGE: &str = "docker.io/library/other:latest";
/// Its digest.
pub(crate) const OTHER_DIGEST: &str =
    "sha256:2222222222222222222222222222222222222222222222222222222222222222";

/// A VMM whose disks are overlays, and one whose disks are whole files.
pub(crate) const OVERLAYS: &str = "fake";
pub(crate) const RAW: &str = "fake-raw";

/// Machines that the daemon starts at one time.
pub(crate) const STARTS: usize = 4;

/// Size of the writable disk of instances.
pub(crate) const OVERLAY: &str = "16MB";

/// Pagers for what needs them, for no longer than that.
pub(crate) const PAGING: PagerPolicy = PagerPolicy {
    backend: BackendWish::Auto,
    graduate_after: None,
    graduate_rate: 1 << 20,
    linger: Duration::ZERO,
    record_for: Duration::from_secs(3600),
};

pub(crate) struct World {
    _dir: TempDir,
    pub(crate) layout: Layout,
    pub(crate) host: FakeHost,
    /// Its network.
    pub(crate) network: network::fake::FakeHost,
    pool: Option<network::Pool>,
    pub(crate) machines: Arc<Machines>,
    pub(crate) gate: Arc<Gate>,
    /// What its daemons write memory images with.
    pub(crate) compression: Compression,
    /// What the daemons of this host prepare ahead.
    pub(crate) warm: WarmPolicy,
    /// The VMM of instances that ask for none.
    vmm: &'static str,
    /// Whether daemons find the VMM of whole files.
    pub(crate) has_raw: bool,
    /// Its pagers.
    pub(crate) pagers: FakePagers,
    /// What its daemons want of them.
    pub(crate) paging: PagerPolicy,
    /// The records as they are on disk, beside the daemon.
    pub(crate) records: Arc<Store>,
    daemon: Option<Daemon>,
}

impl World {
    /// A fresh host with a running daemon.
    pub(crate) async fn new() -> Self {
        let mut world = Self::without_daemon();
        world.start_daemon().await;
        world
    }

    /// As [`World::new`], with this VMM for instances that ask for none.
    pub(crate) async fn on(vmm: &'static str) -> Self {
        let mut world = Self::without_daemon();
        world.vmm = vmm;
        world.start_daemon().await;
        world
    }

    /// As [`World::new`], with forks prepared ahead.
    pub(crate) async fn with_warm_forks(forks: usize, idle: Duration) -> Self {
        let mut world = Self::without_daemon();
        world.warm = WarmPolicy { forks, idle };
        world.start_daemon().await;
        world
    }

    /// As [`World::new`], with a VMM whose machines can get their memory from pagers.
    pub(crate) async fn with_pagers(policy: PagerPolicy) -> Self {
        let mut world = Self::without_daemon();
        world.vmm = RAW;
        world.paging = policy;
        world.start_daemon().await;
        world
    }

    /// As [`World::new`], with memory images that are compressed unless somebody says otherwise.
    pub(crate) async fn with_compression(compression: Compression) -> Self {
        let mut world = Self::without_daemon();
        world.compression = compression;
        world.start_daemon().await;
        world
    }

    /// As [`World::with_warm_forks`], with these outside addresses.
    pub(crate) async fn with_warm_forks_in(pool: &str, forks: usize, idle: Duration) -> Self {
        let mut world = Self::without_daemon();
        world.pool = Some(pool.parse().unwrap());
        world.warm = WarmPolicy { forks, idle };
        world.start_daemon().await;
        world
    }

    /// As [`World::new`], with these outside addresses.
    pub(crate) async fn with_pool(pool: &str) -> Self {
        let mut world = Self::without_daemon();
        world.pool = Some(pool.parse().unwrap());
        world.start_daemon().await;
        world
    }

    /// As [`World::new`], on a host with this network.
    pub(crate) async fn with_network(network: network::fake::FakeHost) -> Self {
        let mut world = Self::without_daemon();
        world.network = network;
        world.start_daemon().await;
        world
    }

    fn without_daemon() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("data"));
        std::fs::create_dir_all(layout.instances()).unwrap();
        std::fs::create_dir_all(layout.boot()).unwrap();
        for name in ["kernel", "vmlinux", "initrd"] {
            std::fs::write(layout.boot().join(name), name).unwrap();
        }
        let records = Arc::new(Store::open(&layout.database()).unwrap());
        for (name, digest) in [(IMAGE, DIGEST), (OTHER_IMAGE, OTHER_DIGEST)] {
            place_image(&layout, &records, name, digest);
        }
        // Formatting one for each test would take longer than the test; fakes do not read it.
        let blank = layout.blank_disk(16 << 20);
        std::fs::create_dir_all(blank.parent().unwrap()).unwrap();
        std::fs::write(blank, "an empty disk").unwrap();
        Self {
            _dir: dir,
            layout,
            host: FakeHost::new(),
            network: network::fake::FakeHost::new(),
            pool: None,
            machines: Arc::default(),
            gate: Arc::default(),
            compression: Compression::Off,
            warm: WarmPolicy {
                forks: 0,
                idle: Duration::from_secs(300),
            },
            vmm: OVERLAYS,
            has_raw: true,
            pagers: FakePagers::default(),
            paging: PAGING,
            records,
            daemon: None,
        }
    }

    /// The daemon that runs now.
    pub(crate) fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    pub(crate) async fn start_daemon(&mut self) {
        assert!(self.daemon.is_none(), "one daemon at a time");
        self.daemon = Some(Daemon::start(self).await.unwrap());
    }

    /// Starts a daemon that is killed again at one of its steps, perhaps before it serves.
    pub(crate) async fn start_and_kill_daemon(&mut self, step: usize, when: When) {
        self.kill_daemon().await;
        self.gate.stop_at(step, when);
        self.daemon = Daemon::start(self).await;
        if self.daemon.is_some() {
            tokio::select! {
                () = self.gate.stopped() => {}
                () = self.settle() => {}
            }
        }
        self.kill_daemon().await;
    }

    /// Ends the daemon where it stands; machines go on.
    pub(crate) async fn kill_daemon(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.kill().await;
        }
    }

    /// Kills the daemon and starts the next one with nothing in its way.
    pub(crate) async fn restart(&mut self) {
        self.kill_daemon().await;
        self.gate.open();
        self.start_daemon().await;
    }

    pub(crate) fn boot_file(&self, name: &str) -> PathBuf {
        self.layout.boot().join(name)
    }
}

/// An image as an import leaves it, with a root disk that only fakes accept.
fn place_image(layout: &Layout, records: &Store, name: &str, digest: &str) {
    let dir = layout
        .images()
        .join(digest.strip_prefix("sha256:").unwrap());
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("rootfs.erofs"), name).unwrap();
    let record = ImageRecord {
        digest: digest.to_owned(),
        platform: "linux/amd64".to_owned(),
        size_bytes: 1,
        rootfs_sha256: String::new(),
        entrypoint: vec!["/bin/program".to_owned()],
        cmd: vec!["--serve".to_owned()],
        env: vec!["FROM=image".to_owned(), "PATH=/bin".to_owned()],
        working_dir: String::new(),
        user: String::new(),
        stop_signal: String::new(),
        labels: std::collections::BTreeMap::default(),
        created_at: UnixMillis(0),
    };
    records.put_image(&record, &[name.to_owned()]).unwrap();
}
