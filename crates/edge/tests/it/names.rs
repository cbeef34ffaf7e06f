//! Questions for names, by datagram and by connection.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use edge::{Audience, DnsListener, Egress, Entry, Resolutions};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::world::{DEADLINE, World, eventually, free_port, id_of};

/// Plays the host's resolver: every name has the addresses that its first label spells, as in
/// `1-1-1-1.10-0-0-9.example.com`; `long` has a text that no datagram holds.
struct Resolver {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Resolver {
    async fn new() -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (udp, tcp) = (
            UdpSocket::bind(address).await.unwrap(),
            TcpListener::bind(address).await.unwrap(),
        );
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let server = tokio::spawn(async move {
            let mut question = [0; 1500];
            loop {
                tokio::select! {
                    received = udp.recv_from(&mut question) => {
                        let (length, client) = received.unwrap();
                        count.fetch_add(1, Ordering::SeqCst);
                        let answer = Self::answer(&question[..length]);
                        let bytes = answer.to_vec().unwrap();
                        let bytes = if bytes.len() > 1232 { answer.truncate().to_vec().unwrap() } else { bytes };
                        udp.send_to(&bytes, client).await.unwrap();
                    }
                    accepted = tcp.accept() => {
                        let (mut stream, _) = accepted.unwrap();
                        let length = stream.read_u16().await.unwrap();
                        let mut question = vec![0; usize::from(length)];
                        stream.read_exact(&mut question).await.unwrap();
                        let bytes = Self::answer(&question).to_vec().unwrap();
                        stream.write_u16(bytes.len().try_into().unwrap()).await.unwrap();
                        stream.write_all(&bytes).await.unwrap();
                    }
                }
            }
        });
        Self {
            address,
            asked,
            server,
        }
    }

    fn answer(question: &[u8]) -> Message {
        let asked = Message::from_vec(question).unwrap();
        let query = &asked.queries[0];
        let mut answer = Message::response(asked.metadata.id, OpCode::Query);
        answer.add_query(query.clone());
        let name = query.name().to_ascii();
        if name.starts_with("long") {
            let texts = (0..20).map(|_| "x".repeat(200)).collect();
            answer.add_answer(Record::from_rdata(
                query.name().clone(),
                60,
                RData::TXT(TXT::new(texts)),
            ));
        } else if query.query_type() == RecordType::A {
            let alias = Name::from_str("alias.example.net.").unwrap();
            answer.add_answer(Record::from_rdata(
                query.name().clone(),
                60,
                RData::CNAME(CNAME(alias.clone())),
            ));
            for label in name.split('.') {
                if let Ok(address) = label.replace('-', ".").parse() {
                    answer.add_answer(Record::from_rdata(alias.clone(), 30, RData::A(A(address))));
                }
            }
        }
        answer
    }
}

/// An edge with a listener, asked from addresses of the loopback that stand for guests.
struct Names {
    world: World,
    port: u16,
    resolver: Resolver,
}

impl Names {
    async fn new(audience: Audience, change: impl FnOnce(&mut World)) -> Self {
        let mut world = World::new().await;
        let resolver = Resolver::new().await;
        let port = free_port();
        world.config.dns.listeners = vec![DnsListener {
            address: ([127, 0, 0, 1], port).into(),
            audience,
        }];
        world.config.dns.upstreams = vec![resolver.address];
        change(&mut world);
        world.go().await;
        Self {
            world,
            port,
            resolver,
        }
    }

    async fn ask(&self, source: &str, name: &str, kind: RecordType) -> Message {
        let socket = UdpSocket::bind((source, 0)).await.unwrap();
        socket.connect(("127.0.0.1", self.port)).await.unwrap();
        socket.send(&question(name, kind)).await.unwrap();
        let mut answer = [0; 4096];
        let length = timeout(DEADLINE, socket.recv(&mut answer))
            .await
            .unwrap()
            .unwrap();
        Message::from_vec(&answer[..length]).unwrap()
    }

    /// The code and the addresses of an answer.
    async fn lookup(&self, source: &str, name: &str) -> (ResponseCode, Vec<IpAddr>) {
        let answer = self.ask(source, name, RecordType::A).await;
        (answer.metadata.response_code, addresses(&answer))
    }
}

fn addresses(answer: &Message) -> Vec<IpAddr> {
    let data = answer.answers.iter().map(|record| &record.data);
    data.filter_map(|data| match data {
        RData::A(address) => Some(address.0.into()),
        _ => None,
    })
    .collect()
}

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_str(name).unwrap(), kind));
    message.to_vec().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn guests(world: &mut World) {
    let shop = |entry: &mut Entry| entry.group = Some("shop".to_owned());
    shop(world.instance("web", "127.0.1.1"));
    shop(world.instance("db", "127.0.1.2"));
    world.instance("db2", "127.0.1.3").egress = Egress::None;
    let domains = vec!["*.example.com".parse().unwrap()];
    world.instance("listed", "127.0.1.4").egress = Egress::Domains(domains);
}

#[tokio::test]
async fn the_host_finds_every_instance_and_is_not_lied_to() {
    let mut names = Names::new(Audience::Host, guests).await;
    for name in ["web.coppice.internal.", "WEB.coppice.internal.", "web."] {
        let answer = names.ask("127.0.0.1", name, RecordType::A).await;
        assert_eq!(
            (answer.metadata.id, answer.metadata.response_code),
            (7, ResponseCode::NoError)
        );
        assert_eq!(addresses(&answer), [ip("127.0.1.1")]);
        assert!(answer.answers[0].ttl <= 5 && answer.metadata.authoritative);
    }
    let absent = names.lookup("127.0.0.1", "absent.coppice.internal.").await;
    assert_eq!(absent, (ResponseCode::NXDomain, vec![]));
    assert_eq!(
        names.lookup("127.0.0.1", "1-1-1-1.example.com.").await.0,
        ResponseCode::Refused
    );
    // Changes count at once.
    names
        .world
        .change("web", |entry| entry.address = Some(ip("127.0.1.9")))
        .await;
    assert_eq!(names.lookup("127.0.0.1", "web.").await.1, [ip("127.0.1.9")]);
    assert_eq!(names.resolver.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_host_listener_may_forward_and_connections_carry_what_datagrams_cannot() {
    let names = Names::new(Audience::HostRecursive, guests).await;
    // For the host nothing is taken out.
    let both = names
        .lookup("127.0.0.1", "1-1-1-1.10-0-0-9.example.com.")
        .await;
    assert_eq!(both.1, [ip("1.1.1.1"), ip("10.0.0.9")]);
    let cut = names
        .ask("127.0.0.1", "long.example.com.", RecordType::TXT)
        .await;
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    let mut stream = TcpStream::connect(("127.0.0.1", names.port)).await.unwrap();
    for _ in 0..2 {
        let question = question("long.example.com.", RecordType::TXT);
        stream
            .write_u16(question.len().try_into().unwrap())
            .await
            .unwrap();
        stream.write_all(&question).await.unwrap();
        let mut answer =
            vec![0; usize::from(timeout(DEADLINE, stream.read_u16()).await.unwrap().unwrap())];
        stream.read_exact(&mut answer).await.unwrap();
        let answer = Message::from_vec(&answer).unwrap();
        assert!(!answer.metadata.truncation && answer.answers.len() == 1);
    }
}

#[tokio::test]
async fn guests_see_their_group_and_public_addresses() {
    let names = Names::new(Audience::Guests, guests).await;
    assert_eq!(names.lookup("127.0.1.1", "db.").await.1, [ip("127.0.1.2")]);
    assert_eq!(
        names.lookup("127.0.1.3", "db.").await.0,
        ResponseCode::NXDomain
    );
    assert_eq!(
        names.lookup("127.0.1.3", "db2.coppice.internal.").await.1,
        [ip("127.0.1.3")]
    );
    assert_eq!(
        names.lookup("127.0.9.9", "db.").await.0,
        ResponseCode::Refused
    );
    // An outside name that points inside is not told; the rest of the answer is.
    let mixed = "1-1-1-1.10-0-0-9.169-254-169-254.127-0-0-1.example.com.";
    assert_eq!(
        names.lookup("127.0.1.1", mixed).await,
        (ResponseCode::NoError, vec![ip("1.1.1.1")])
    );
    assert_eq!(
        names.lookup("127.0.1.3", "1-1-1-1.example.com.").await.0,
        ResponseCode::Refused
    );
}

#[tokio::test]
async fn private_networks_that_an_instance_may_reach_may_have_names() {
    let reachable = |world: &mut World| {
        world.instance("web", "127.0.1.1").reachable = vec!["10.0.0.0/24".parse().unwrap()];
    };
    let names = Names::new(Audience::Guests, reachable).await;
    let told = names
        .lookup("127.0.1.1", "10-0-0-9.10-0-1-9.example.com.")
        .await;
    assert_eq!(told.1, [ip("10.0.0.9")]);
}

async fn subscribed(names: &Names) -> Resolutions {
    let resolutions = names.world.client.subscribe().await.unwrap();
    assert!(names.world.client.status().await.unwrap().subscribed);
    resolutions
}

#[tokio::test]
async fn listed_domains_are_allowed_before_they_are_told() {
    let names = Names::new(Audience::Guests, guests).await;
    let listed = "127.0.1.4";
    assert_eq!(
        names.lookup(listed, "1-1-1-1.example.org.").await.0,
        ResponseCode::Refused
    );
    assert_eq!(
        names.resolver.asked.load(Ordering::SeqCst),
        0,
        "what is not listed is not even asked for"
    );
    // Nobody there to allow it.
    assert_eq!(
        names.lookup(listed, "1-1-1-1.example.com.").await,
        (ResponseCode::ServFail, vec![])
    );

    let mut resolutions = subscribed(&names).await;
    let lookup = names.lookup(listed, "1-1-1-1.10-0-0-9.Example.com.");
    let allow = async {
        let pending = resolutions.next().await.unwrap();
        let resolved = pending.resolved.clone();
        resolutions.answer(pending, true).await.unwrap();
        resolved
    };
    let (told, resolved) = tokio::join!(lookup, allow);
    assert_eq!(told, (ResponseCode::NoError, vec![ip("1.1.1.1")]));
    assert_eq!(
        (resolved.instance, resolved.generation, resolved.source),
        (id_of("listed"), 1, ip(listed))
    );
    assert_eq!(resolved.name, "1-1-1-1.10-0-0-9.example.com");
    let addresses: Vec<_> = resolved
        .addresses
        .iter()
        .map(|one| (one.address, one.ttl_seconds))
        .collect();
    assert_eq!(
        addresses,
        [(ip("1.1.1.1"), 30)],
        "private addresses are never asked for"
    );
}

#[tokio::test]
async fn without_a_yes_in_time_nothing_is_told() {
    let names = Names::new(Audience::Guests, guests).await;
    let mut resolutions = subscribed(&names).await;
    let lookup = || names.lookup("127.0.1.4", "1-1-1-1.example.com.");
    let refuse = async {
        let pending = resolutions.next().await.unwrap();
        resolutions.answer(pending, false).await.unwrap();
    };
    assert_eq!(
        tokio::join!(lookup(), refuse).0,
        (ResponseCode::ServFail, vec![])
    );
    // Heard and not answered.
    let (told, pending) = tokio::join!(lookup(), resolutions.next());
    assert_eq!(told, (ResponseCode::ServFail, vec![]));
    drop(pending);
    // A new subscriber takes the place of the old one.
    let _newer = subscribed(&names).await;
    assert!(resolutions.next().await.is_err());
    drop(resolutions);
    // One that goes away while it is asked.
    let mut leaving = subscribed(&names).await;
    let leave = async {
        leaving.next().await.unwrap();
        drop(leaving);
    };
    assert_eq!(
        tokio::join!(lookup(), leave).0,
        (ResponseCode::ServFail, vec![])
    );
}

#[tokio::test]
async fn hostile_datagrams_are_survived() {
    let names = Names::new(Audience::Guests, guests).await;
    let socket = UdpSocket::bind("127.0.1.1:0").await.unwrap();
    socket.connect(("127.0.0.1", names.port)).await.unwrap();
    let good = question("web.", RecordType::A);
    let mut answer_bit = good.clone();
    answer_bit[2] |= 0x80;
    let mut many = good.clone();
    many[5] = 200;
    for bytes in [
        &[][..],
        &[0; 3],
        &[0xff; 600],
        &answer_bit,
        &many,
        &good[..good.len() - 3],
    ] {
        socket.send(bytes).await.unwrap();
    }
    for length in 0..good.len() {
        for value in [0, 0xc0, 0xff] {
            let mut bytes = good.clone();
            bytes[length] = value;
            socket.send(&bytes).await.unwrap();
        }
    }
    eventually("names are answered still", async || {
        names.lookup("127.0.1.2", "web.").await == (ResponseCode::NoError, vec![ip("127.0.1.1")])
    })
    .await;
}

#[tokio::test]
async fn a_silent_resolver_is_a_failure_in_time() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let names = Names::new(Audience::Guests, |world| {
        guests(world);
        world.config.dns.upstream_ms = 50;
        world.config.dns.upstreams = vec![address];
    })
    .await;
    assert_eq!(
        names.lookup("127.0.1.1", "1-1-1-1.example.com.").await.0,
        ResponseCode::ServFail
    );
    assert!(
        names
            .world
            .number("coppice_edge_dns_queries_total", Some("failed"))
            .await
            == 1.0
    );
}
