//! The network in memory passes the suite that the real one passes.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use network::conformance::{BUSY_PORT, Scenario, Subject};
use network::fake::{FakeHost, FakeNetwork};
use network::{
    Config, Held, Lease, LeftoverKind, Network, NetworkError, Opened, Policy, Pool, Protocol,
};

struct Fake {
    host: FakeHost,
    now: Mutex<Option<Arc<FakeNetwork>>>,
}

fn config() -> Config {
    Config::new("00000001".parse().unwrap(), PathBuf::from("/run/coppice"))
}

#[async_trait]
impl Subject for Fake {
    async fn open(
        &self,
        pool: Pool,
        held: Vec<Held>,
    ) -> Result<(Arc<dyn Network>, Opened), NetworkError> {
        let mut config = config();
        config.pool = Some(pool);
        let (network, opened) = FakeNetwork::open(&self.host, &config, &held)?;
        *self.now.lock().unwrap() = Some(Arc::clone(&network));
        Ok((network, opened))
    }

    async fn kill(&self, network: Arc<dyn Network>) {
        drop(network);
        self.now.lock().unwrap().take();
    }

    async fn passes(&self, from: &Lease, to: Ipv4Addr) -> bool {
        let now = self.now.lock().unwrap();
        now.as_ref().unwrap().passes(from.slot, to)
    }
}

#[tokio::test]
async fn the_fake_conforms() {
    for scenario in Scenario::ALL {
        println!("{scenario:?}");
        let host = FakeHost::new();
        host.listen(Protocol::Tcp, BUSY_PORT);
        let now = Mutex::new(None);
        scenario.run(&Fake { host, now }).await;
    }
}

#[tokio::test]
async fn strays_and_failures_are_shown_as_on_a_host() {
    let host = FakeHost::new();
    host.stray(LeftoverKind::Link, "cp000000012", "00000001");
    host.stray(LeftoverKind::Link, "cp000000022", "00000002");
    let (network, opened) = FakeNetwork::open(&host, &config(), &[]).unwrap();
    assert_eq!(opened.removed.len(), 1);
    assert_eq!(network.leftovers().await.unwrap()[0].mark, "00000002");
    let before = host.objects();
    host.set_broken(true);
    assert!(network.take("owner", Policy::default()).await.is_err());
    assert_eq!(host.objects(), before);
    assert_eq!(network.usage().in_use, 0);
}
