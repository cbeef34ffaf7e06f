//! The real network of a test, where this process may make one.

use model::InstanceRecord;
use network::Config;
use network::linux::{LinuxNetwork, remove_all};
use network::plan::Names;

use daemon::instances::{Networking, held};

/// Shared by all daemons of the host, so that they see each other.
const RUN_ROOT: &str = "/run/coppice";

/// Slots that are kept prepared: a test has few machines.
const SLOTS: usize = 4;

/// Everything of it is removed when this is dropped.
pub(crate) struct Network {
    config: Config,
}

impl Network {
    pub(crate) fn new() -> Self {
        let mut bytes = [0; 4];
        getrandom::fill(&mut bytes).unwrap();
        let mut config = Config::new(hex::encode(bytes).parse().unwrap(), RUN_ROOT.into());
        config.ready = SLOTS;
        Self { config }
    }

    pub(crate) async fn open(&self, records: &[InstanceRecord]) -> Networking {
        if !rustix::process::geteuid().is_root() {
            return Networking::Missing("only root makes networks".to_owned());
        }
        let (network, _) = LinuxNetwork::open(self.config.clone(), held(records))
            .await
            .unwrap();
        Networking::Ready(network)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = remove_all(&Names::new(&self.config)) {
            println!("the network is left: {error}");
        }
    }
}
