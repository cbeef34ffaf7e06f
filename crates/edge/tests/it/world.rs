//! An edge in a directory of its own, and what the daemon would tell it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use edge::{
    Client, Config, DirectoryUpdate, Egress, Entry, Place, Rule, RunError, RunOptions, Target,
};
use model::{InstanceId, State};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// For anything that must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// An edge and its daemon.
pub(crate) struct World {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) client: Client,
    pub(crate) config: Config,
    pub(crate) entries: Vec<Entry>,
    sequence: u64,
    edge: Option<JoinHandle<Result<(), RunError>>>,
}

impl World {
    /// A running edge that does nothing yet.
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::empty(1);
        config.ingress.bind = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let mut world = Self {
            client: Client::new(Place::at(directory.path()).socket()),
            directory,
            config,
            entries: Vec::new(),
            sequence: 0,
            edge: None,
        };
        world.start(true).await;
        world
    }

    pub(crate) fn place(&self) -> Place {
        Place::at(self.directory.path())
    }

    /// Starts the edge, as the daemon would or as it would by itself.
    pub(crate) async fn start(&mut self, wait_for_directory: bool) {
        let options = RunOptions {
            place: self.place(),
            build: "test".to_owned(),
            wait_for_directory,
            // More than one, whatever the host has.
            ingress_threads: NonZeroUsize::new(3).unwrap(),
        };
        self.edge = Some(tokio::spawn(edge::run(options)));
        eventually("the edge answers", async || {
            self.client.hello().await.is_ok()
        })
        .await;
    }

    /// Waits until the edge has ended by itself.
    pub(crate) async fn ended(&mut self) {
        let edge = self.edge.take().unwrap();
        tokio::time::timeout(DEADLINE, edge)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }

    /// A rule for a host name on a port of its own; the target is port `port` of the instance.
    pub(crate) fn rule(&mut self, hostname: &str, instance: &str, port: u16) -> &mut Rule {
        let listen = free_port();
        self.rule_at(listen, hostname, instance, port)
    }

    /// A rule for a host name on the given port.
    pub(crate) fn rule_at(
        &mut self,
        listen: u16,
        hostname: &str,
        instance: &str,
        port: u16,
    ) -> &mut Rule {
        let rules = &mut self.config.ingress.rules;
        rules.push(Rule {
            id: format!("rule-{}", rules.len()),
            hostname: hostname.parse().unwrap(),
            port: listen,
            target: Target {
                instance: instance.parse().unwrap(),
                port,
            },
            tls: false,
            redirect_http: false,
            header_auth: None,
            wake: false,
        });
        rules.last_mut().unwrap()
    }

    /// Adds an instance that runs.
    pub(crate) fn instance(&mut self, name: &str, address: &str) -> &mut Entry {
        self.entries.push(Entry {
            id: id_of(name),
            name: Some(name.parse().unwrap()),
            address: Some(address.parse().unwrap()),
            generation: 1,
            state: State::Running,
            group: None,
            egress: Egress::Open,
            reachable: Vec::new(),
        });
        self.entries.last_mut().unwrap()
    }

    /// Makes configuration and directory live.
    pub(crate) async fn go(&mut self) {
        self.apply().await;
        self.tell().await;
    }

    /// Makes the configuration live.
    pub(crate) async fn apply(&mut self) {
        self.config.revision += 1;
        let applied = self.client.apply(self.config.clone()).await.unwrap();
        assert_eq!(applied.revision, self.config.revision);
    }

    /// Tells where instances are.
    pub(crate) async fn tell(&mut self) {
        self.sequence += 1;
        let update = DirectoryUpdate::Replace {
            sequence: self.sequence,
            entries: self.entries.clone(),
        };
        assert_eq!(self.client.directory(update).await.unwrap(), self.sequence);
    }

    /// Tells how one instance changed.
    pub(crate) async fn change(&mut self, name: &str, change: impl FnOnce(&mut Entry)) {
        let entry = self
            .entries
            .iter_mut()
            .find(|entry| entry.id == id_of(name))
            .unwrap();
        change(entry);
        self.sequence += 1;
        let update = DirectoryUpdate::Change {
            sequence: self.sequence,
            upsert: vec![entry.clone()],
            remove: Vec::new(),
        };
        self.client.directory(update).await.unwrap();
    }

    /// A number of the edge.
    pub(crate) async fn number(&self, family: &str, label: Option<&str>) -> f64 {
        self.client.metrics().await.unwrap().value(family, label)
    }
}

/// The id of the instance with this name.
pub(crate) fn id_of(name: &str) -> InstanceId {
    let mut entropy = [0; 16];
    entropy[..name.len()].copy_from_slice(name.as_bytes());
    InstanceId::from_entropy(entropy)
}

/// A loopback address.
pub(crate) fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// A port that nobody has, below those that the kernel gives to connections by itself.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() % 1000).unwrap() * 12;
    loop {
        let port = 20_000 + (own + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        let free = |address| TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok();
        if free(SocketAddr::from(([0, 0, 0, 0], port))) {
            return port;
        }
    }
}

/// Waits for a condition.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
