//! A host of its own for each test, with an internet next to it.
//!
//! The thread of the test gets new network and mount namespaces; all threads that it starts are in them too. When the
//! test ends, the kernel takes them away with everything in them.

use std::collections::BTreeSet;
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use network::linux::LinuxNetwork;
use network::{Config, Held, Lease, Network, Opened, Policy};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;
use tempfile::TempDir;

use crate::place::{Place, ip, tool};
use crate::sys;

/// A host and its surroundings.
pub(crate) struct Lab {
    /// The host.
    pub(crate) host: Place,
    /// Behind the host's default route: servers on port 80 of [`WEB`], [`METADATA`] and [`PRIVATE`].
    pub(crate) internet: Place,
    dir: TempDir,
}

/// A server of the internet.
pub(crate) const WEB: &str = "198.51.100.7";
/// The metadata service of a cloud.
pub(crate) const METADATA: &str = "169.254.169.254";
/// A neighbour of the host.
pub(crate) const PRIVATE: &str = "192.168.77.7";
/// Address of the host towards the internet.
pub(crate) const HOST: &str = "203.0.113.1";

/// Runs a test, or says why not.
pub(crate) fn lab<F: Future<Output = ()>>(test: impl FnOnce(Lab) -> F + Send + 'static) {
    if let Some(lack) = network::linux::check().into_iter().find(|lack| lack.fatal) {
        println!("skipped: {lack}");
        return;
    }
    let run = || {
        let lab = Lab::new();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            // The kernel tells of a carrier later; what is compared before and after must not differ by it.
            let connected = || tool("ip", "-brief link show wan").contains(" UP ");
            until("the host is connected", connected).await;
            test(lab).await;
        });
    };
    if let Err(panic) = thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        sys::unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS).unwrap();
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).unwrap();
        // Namespaces are mounted in here, so that nothing of a test is seen or stays outside of it.
        rustix::mount::mount("run", dir.path(), "tmpfs", MountFlags::empty(), None).unwrap();
        ip("link set lo up");
        let (host, internet) = (Place::here(), Place::new());
        ip(&format!(
            "link add wan type veth peer name eth0 netns {}",
            internet.path()
        ));
        ip(&format!("addr add {HOST}/24 dev wan"));
        ip("link set wan up");
        internet.ip("addr add 203.0.113.2/24 dev eth0");
        internet.ip("link set eth0 up");
        for address in [WEB, METADATA, PRIVATE] {
            internet.ip(&format!("addr add {address}/32 dev lo"));
        }
        ip("route add default via 203.0.113.2");
        internet.serve("0.0.0.0:80", "internet");
        Self {
            host,
            internet,
            dir,
        }
    }

    /// Settings for the daemon number `n` of this host.
    pub(crate) fn config(&self, n: u32) -> Config {
        let mut config = Config::new(format!("{n:08x}").parse().unwrap(), self.root());
        config.ready = 2;
        config
    }

    /// Directory of all daemons.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("coppice")
    }

    /// Opens the network of the first daemon.
    pub(crate) async fn open(&self) -> Arc<LinuxNetwork> {
        self.open_with(self.config(1), vec![]).await.0
    }

    /// Opens a network.
    pub(crate) async fn open_with(
        &self,
        config: Config,
        held: Vec<Held>,
    ) -> (Arc<LinuxNetwork>, Opened) {
        LinuxNetwork::open(config, held).await.unwrap()
    }

    /// Everything on this host that a network could leave behind.
    pub(crate) fn objects(&self) -> BTreeSet<String> {
        let mut objects = BTreeSet::new();
        for (program, arguments) in [
            ("ip", "-oneline -brief link show"),
            ("ip", "-4 route show table all"),
            ("nft", "list tables"),
        ] {
            let lines = tool(program, arguments);
            objects.extend(lines.lines().map(|line| line.trim().to_owned()));
        }
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let netns = mounts.lines().filter(|line| line.contains(" - nsfs "));
        // Namespaces of other programs of this machine come and go as well.
        let own = netns
            .filter_map(|line| line.split(' ').nth(4))
            .filter(|path| Path::new(path).starts_with(self.dir.path()));
        objects.extend(own.map(str::to_owned));
        objects
    }
}

/// Takes a slot with a policy.
pub(crate) async fn take(network: &Arc<LinuxNetwork>, owner: &str, policy: Policy) -> Lease {
    network.take(owner, policy).await.unwrap()
}

/// Waits until `done`, and fails with its words if that takes more than ten seconds.
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let wait = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), wait)
        .await
        .unwrap_or_else(|_| panic!("not within ten seconds: {what}"));
}
