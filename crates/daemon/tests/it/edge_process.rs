//! The daemon and its edge, a real process: what it is told, and told again.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use daemon::edge::{Edge, Settings, follow};
use daemon::ingress::{IngressError, Ingresses};
use daemon::instances::{HostPorts as _, OpError};
use daemon::store::{IngressRecord, IngressRuleRecord};
use model::network::{Protocol, Publish};
use model::{InstanceId, Tags, UnixMillis};
use tokio::task::JoinHandle;

use crate::world::{PATIENCE, World};

/// A daemon with its edge.
struct Place {
    edge: Arc<Edge>,
    follower: JoinHandle<()>,
    client: edge::Client,
    certificates: PathBuf,
    /// Last, for the edge's directory is in it.
    world: World,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl Place {
    async fn new() -> Self {
        let world = World::new().await;
        let place = edge::Place::in_data_dir(world.layout.root());
        let certificates = world.layout.root().join("certificates");
        std::fs::create_dir_all(&certificates).unwrap();
        let settings = Settings {
            bind: vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
            http_port: 80,
            certificates: certificates.clone(),
            zone: "test.internal".to_owned(),
            upstreams: vec![],
            host_address: None,
            daemon_socket: world.layout.root().join("coppiced.sock"),
        };
        let client = edge::Client::new(place.socket());
        let start = edge::Start::new(place, env!("CARGO_BIN_EXE_coppiced"), "test");
        let edge = Edge::open(start, settings, None, vec![], Default::default()).await;
        let instances = Arc::clone(&world.daemon().instances);
        let follower = tokio::spawn(follow(Arc::clone(&edge), instances));
        Self {
            edge,
            follower,
            client,
            certificates,
            world,
        }
    }

    async fn instance(&self, name: &str) -> InstanceId {
        self.world.stopped(name).await.parse().unwrap()
    }

    fn ingresses(&self) -> Ingresses {
        let instances = Arc::clone(&self.world.daemon().instances);
        Ingresses::new(
            Arc::clone(&self.world.records),
            instances,
            Arc::clone(&self.edge),
        )
    }

    async fn end(self) {
        self.follower.abort();
        self.client.stop().await.unwrap();
        self.world.delete_everything().await;
    }
}

async fn create(
    ingresses: &Ingresses,
    name: &str,
    hostname: &str,
    port: u16,
) -> Result<IngressRecord, IngressError> {
    let rule = IngressRuleRecord {
        hostname: hostname.to_owned(),
        port,
        instance: "web".to_owned(),
        target_port: 80,
        tls: false,
        redirect_http: false,
        header_auth: None,
        wake: false,
    };
    let name = name.parse().unwrap();
    ingresses
        .create(name, vec![rule], Tags::new(), UnixMillis(0))
        .await
}

fn publish(host_ip: Ipv4Addr, host_port: u16) -> Publish {
    Publish {
        protocol: Protocol::Tcp,
        host_ip: Some(host_ip),
        host_port,
        guest_port: 80,
    }
}

/// A port that nobody has, below those that the kernel gives to connections by itself.
fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() % 1000).unwrap() * 8;
    loop {
        let port = 12_000 + (own + NEXT.fetch_add(1, Ordering::Relaxed)) % 8_000;
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

fn is_open(port: u16) -> bool {
    TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_ok()
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    assert!(waited.is_ok(), "not in time: {what}");
}

/// A certificate without sense: the edge refuses every document with it.
fn spoil(certificates: &Path) -> [PathBuf; 2] {
    ["crt", "key"].map(|extension| {
        let path = certificates.join("spoilt").with_extension(extension);
        std::fs::write(&path, "nonsense").unwrap();
        path
    })
}

#[tokio::test]
async fn a_port_that_could_not_be_closed_is_closed_when_the_edge_can_be_told() {
    let place = Place::new().await;
    let id = place.instance("web").await;
    let port = free_port();
    let wanted = [publish(Ipv4Addr::LOCALHOST, port)];
    place.edge.open(&id, &wanted).await.unwrap();
    assert!(is_open(port));
    let spoilt = spoil(&place.certificates);
    place.edge.close(&id).await;
    assert!(is_open(port), "the edge refuses what it is told");
    for file in spoilt {
        std::fs::remove_file(file).unwrap();
    }
    // Nothing else changes.
    until("the port to be closed", || !is_open(port)).await;
    place.end().await;
}

#[tokio::test]
async fn an_edge_that_died_is_told_everything_whoever_starts_it_again() {
    let place = Place::new().await;
    let id = place.instance("web").await;
    let port = free_port();
    let wanted = [publish(Ipv4Addr::LOCALHOST, port)];
    place.edge.open(&id, &wanted).await.unwrap();
    let knows = async || {
        place
            .client
            .status()
            .await
            .is_ok_and(|it| it.instances == 1)
    };
    let told = async |what: &str| {
        let wait = async {
            while !knows().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        assert!(
            waited.is_ok(),
            "the edge does not know where instances are {what}"
        );
    };
    told("after its start").await;
    let first = place.client.hello().await.unwrap().pid;
    let pid = rustix::process::Pid::from_raw(first.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    // The follower may have started the next one already.
    let alive = async || {
        let hello = place.client.hello().await;
        hello.is_ok_and(|hello| hello.pid == first)
    };
    while alive().await {
        tokio::task::yield_now().await;
    }
    // This starts it again, and changes no instance.
    let ingresses = place.ingresses();
    create(&ingresses, "all", "a.test", free_port())
        .await
        .unwrap();
    assert!(is_open(port));
    told("after it was started by a change").await;
    place.end().await;
}

#[tokio::test]
async fn of_two_ingresses_made_at_once_under_one_name_one_is_refused() {
    let place = Place::new().await;
    place.instance("web").await;
    let ingresses = place.ingresses();
    let (one, two) = tokio::join!(
        create(&ingresses, "same", "a.test", free_port()),
        create(&ingresses, "same", "b.test", free_port()),
    );
    let (made, refused): (Vec<_>, Vec<_>) = [one, two].into_iter().partition(Result::is_ok);
    assert_eq!(made.len(), 1, "{refused:?}");
    let refused = refused.into_iter().next().unwrap().unwrap_err();
    assert!(
        matches!(&refused, IngressError::NameTaken(name) if name == "same"),
        "{refused}"
    );
    assert_eq!(ingresses.list().await.len(), 1);
    place.end().await;
}

#[tokio::test]
async fn a_port_is_either_of_ingress_or_published() {
    let place = Place::new().await;
    let id = place.instance("web").await;
    let ingresses = place.ingresses();
    let elsewhere = Ipv4Addr::new(192, 0, 2, 1);
    let (published, routed) = (free_port(), free_port());
    place
        .edge
        .open(&id, &[publish(elsewhere, published)])
        .await
        .unwrap();
    let refused = create(&ingresses, "all", "a.test", published).await;
    let refused = refused.unwrap_err();
    assert!(
        matches!(&refused, IngressError::Published { port, instance } if *port == published && instance == "web"),
        "{refused}"
    );
    create(&ingresses, "all", "a.test", routed).await.unwrap();
    let wanted = publish(elsewhere, routed);
    assert_eq!(
        place.edge.claimant(&wanted).await.as_deref(),
        Some("ingress all")
    );
    let refused = place.edge.open(&id, &[wanted]).await.unwrap_err();
    assert!(
        matches!(&refused, OpError::PortInUse { by, .. } if by == "ingress all"),
        "{refused}"
    );
    ingresses.remove("all").await.unwrap();
    place.edge.open(&id, &[wanted]).await.unwrap();
    place.end().await;
}
