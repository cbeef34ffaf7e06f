//! Documents: whole or not at all, and never at the cost of a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use edge::{ApplyError, DirectoryError, DirectoryUpdate, Rejected};
use tokio::net::TcpListener;

use crate::guest::Guest;
use crate::requests::{Connection, get, request};
use crate::world::{World, eventually, free_port, local};

fn rejected(outcome: Result<edge::Applied, ApplyError>) -> Rejected {
    match outcome.unwrap_err() {
        ApplyError::Rejected(rejected) => rejected,
        ApplyError::Client(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_port_in_use_rejects_the_document_and_the_old_one_stays() {
    let web = Guest::new("web", "127.0.0.1").await;
    let mut world = World::new().await;
    let port = world.rule("example.com", "web", web.port()).port;
    world.instance("web", "127.0.0.1");
    world.go().await;
    let live = world.config.clone();

    let other = TcpListener::bind(local(0)).await.unwrap();
    let taken = other.local_addr().unwrap();
    let also = free_port();
    world.rule_at(also, "also.com", "web", web.port());
    world.rule_at(taken.port(), "taken.com", "web", web.port());
    world.config.ingress.rules.remove(0);
    world.config.revision = 77;
    let why = rejected(world.client.apply(world.config.clone()).await);
    assert!(
        matches!(&why, Rejected::PortInUse { address, wanted_by, .. } if *address == taken && wanted_by == "rule-2"),
        "{why}"
    );

    assert_eq!(get(port, "example.com", "/").await.body, "web");
    TcpListener::bind(local(also))
        .await
        .expect("the port that was free is free again");
    assert_eq!(
        world.client.status().await.unwrap().revision,
        Some(live.revision)
    );
    let kept = std::fs::read_to_string(world.place().config()).unwrap();
    assert_eq!(serde_json::from_str::<edge::Config>(&kept).unwrap(), live);
}

#[tokio::test]
async fn contradictions_name_the_rule() {
    let mut world = World::new().await;
    let port = free_port();
    world.rule_at(port, "{a}.example.com", "{a}", 80);
    world.rule_at(port, "{b}.Example.com", "{b}", 80);
    let why = rejected(world.client.apply(world.config.clone()).await);
    assert!(
        matches!(&why, Rejected::HostnameInUse { rule, other, .. } if rule == "rule-1" && other == "rule-0"),
        "{why}"
    );
    for (change, words) in [
        (
            Box::new(|rule: &mut edge::Rule| rule.redirect_http = true)
                as Box<dyn Fn(&mut edge::Rule)>,
            "redirect_http needs tls",
        ),
        (
            Box::new(|rule| rule.target.instance = "{other}".parse().unwrap()),
            "does not capture",
        ),
        (Box::new(|rule| rule.tls = true), "no certificate covers"),
        (Box::new(|rule| rule.port = 0), "1 to 65535"),
    ] {
        let mut config = world.config.clone();
        config.ingress.rules.truncate(1);
        change(&mut config.ingress.rules[0]);
        let why = rejected(world.client.apply(config).await).to_string();
        assert!(why.contains(words) && why.contains("rule-0"), "{why}");
    }
    let mut config = world.config.clone();
    config.format = 99;
    let why = rejected(world.client.apply(config).await);
    assert_eq!(
        why,
        Rejected::Format {
            given: 99,
            known: edge::FORMAT_VERSION
        }
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_documents_change() {
    let web = Guest::new("web", "127.0.0.1").await;
    let mut world = World::new().await;
    let port = world.rule("example.com", "web", web.port()).port;
    world.instance("web", "127.0.0.1");
    world.go().await;
    let (done, answered) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let clients: Vec<_> = (0..4)
        .map(|number| {
            let (done, answered) = (Arc::clone(&done), Arc::clone(&answered));
            tokio::spawn(async move {
                let mut connection = Connection::open(port).await;
                while !done.load(Ordering::Relaxed) {
                    // Half of them make new connections all the time.
                    if number % 2 == 0 {
                        connection = Connection::open(port).await;
                    }
                    let answer = connection.get("example.com", "/").await;
                    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "web"));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 0..30 {
        world.rule("other.com", "web", web.port());
        if round % 3 == 2 {
            world.config.ingress.rules.truncate(1);
        }
        world.apply().await;
        let before = answered.load(Ordering::Relaxed);
        eventually("requests are answered meanwhile", async || {
            answered.load(Ordering::Relaxed) > before
        })
        .await;
    }
    done.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test]
async fn a_removed_port_finishes_what_is_under_way() {
    let web = Guest::new("web", "127.0.0.1").await;
    let mut world = World::new().await;
    let port = world.rule("example.com", "web", web.port()).port;
    world.instance("web", "127.0.0.1");
    world.go().await;
    let (mut idle, mut busy) = (Connection::open(port).await, Connection::open(port).await);
    assert_eq!(idle.get("example.com", "/").await.body, "web");
    let answer = tokio::spawn(async move { busy.get("example.com", "/late").await });
    eventually("the guest has both", async || {
        web.requests.load(Ordering::SeqCst) == 2
    })
    .await;
    // The rule stays for connections that are open; only the port moves.
    world.config.ingress.rules[0].port = free_port();
    world.apply().await;
    assert!(
        tokio::net::TcpStream::connect(local(port)).await.is_err(),
        "nobody listens any more"
    );
    eventually("the idle connection is closed", async || idle.0.is_closed()).await;
    assert_eq!(answer.await.unwrap().body, "web");
}

#[tokio::test]
async fn a_port_may_change_its_use_in_one_document() {
    let web = Guest::new("web", "127.0.0.1").await;
    let mut world = World::new().await;
    let port = world.rule("example.com", "web", web.port()).port;
    world.instance("web", "127.0.0.1");
    world.go().await;
    let ingress = world.config.clone();
    world.config.ingress.rules.clear();
    world.config.forwards.push(edge::Forward {
        id: "published".to_owned(),
        protocol: edge::Protocol::Tcp,
        listen: ([0, 0, 0, 0], port).into(),
        target: ingress.ingress.rules[0].target.clone(),
    });
    world.apply().await;
    // Any host name will do: these are bytes now.
    assert_eq!(get(port, "anything.org", "/").await.body, "web");

    // And back, together with a port that cannot be had: the forward must be there still.
    let other = TcpListener::bind(local(0)).await.unwrap();
    let mut impossible = ingress.clone();
    impossible
        .ingress
        .rules
        .push(impossible.ingress.rules[0].clone());
    impossible.ingress.rules[1].id = "taken".to_owned();
    impossible.ingress.rules[1].port = other.local_addr().unwrap().port();
    rejected(world.client.apply(impossible).await);
    assert_eq!(get(port, "anything.org", "/").await.body, "web");
    world.config = ingress;
    world.apply().await;
    assert_eq!(get(port, "anything.org", "/").await.status, 404);
}

#[tokio::test]
async fn an_edge_that_starts_by_itself_serves_what_it_served() {
    let web = Guest::new("web", "127.0.0.1").await;
    let mut world = World::new().await;
    let port = world.rule("example.com", "web", web.port()).port;
    world.instance("web", "127.0.0.1");
    world.go().await;
    world.client.stop().await.unwrap();
    world.ended().await;
    assert!(!world.place().socket().exists());
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(world.place().config())
            .unwrap()
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);

    // A port that somebody took meanwhile does not keep the others closed.
    world.start(false).await;
    assert_eq!(get(port, "example.com", "/").await.body, "web");
    assert_eq!(
        world.client.status().await.unwrap().revision,
        Some(world.config.revision)
    );
    world.client.stop().await.unwrap();
    world.ended().await;
    let taken = TcpListener::bind(local(port)).await.unwrap();
    world.start(false).await;
    let missing = world.client.status().await.unwrap().missing;
    assert!(
        matches!(missing.as_slice(), [Rejected::PortInUse { .. }]),
        "{missing:?}"
    );
    // Nor does it keep others from being changed.
    let more = world.rule("more.com", "web", web.port()).port;
    world.apply().await;
    assert_eq!(get(more, "more.com", "/").await.body, "web");
    assert_eq!(world.client.status().await.unwrap().missing.len(), 1);
    drop(taken);
    eventually("the port is opened once it is free", async || {
        world.client.status().await.unwrap().missing.is_empty()
    })
    .await;
    assert_eq!(get(port, "example.com", "/").await.body, "web");
}

#[tokio::test]
async fn an_edge_started_by_the_daemon_waits_for_its_directory() {
    let (old, new) = (
        Guest::new("old", "127.0.0.1").await,
        Guest::new("new", "127.0.0.2").await,
    );
    let mut world = World::new().await;
    let port = world.rule("example.com", "web", old.port()).port;
    world.instance("web", "127.0.0.1");
    world.go().await;
    world.client.stop().await.unwrap();
    world.ended().await;
    world.start(true).await;
    let mut connection = Connection::open(port).await;
    let answer =
        tokio::spawn(async move { connection.send(request("example.com", "/", &[])).await });
    eventually("the request is there", async || {
        world.number("coppice_edge_client_connections", None).await == 1.0
    })
    .await;
    // The instance moved while nobody told the edge.
    world.entries[0].address = Some("127.0.0.2".parse().unwrap());
    world.config.ingress.rules[0].target.port = new.port();
    world.apply().await;
    world.tell().await;
    let answer = crate::requests::Answer::read(answer.await.unwrap()).await;
    assert_ne!(answer.body, "old");
    assert_eq!(old.requests.load(Ordering::SeqCst), 0);
    assert_eq!(get(port, "example.com", "/").await.body, "new");
}

#[tokio::test]
async fn a_lost_change_of_the_directory_is_noticed() {
    let mut world = World::new().await;
    world.instance("web", "127.0.0.1");
    let change = |sequence| DirectoryUpdate::Change {
        sequence,
        upsert: Vec::new(),
        remove: vec![crate::world::id_of("web")],
    };
    let out = |outcome| match outcome {
        Err(DirectoryError::OutOfSequence(out)) => out.expected,
        other => panic!("{other:?}"),
    };
    out(world.client.directory(change(1)).await);
    world.tell().await;
    assert_eq!(out(world.client.directory(change(3)).await), 2);
    assert_eq!(world.client.status().await.unwrap().instances, 1);
    assert_eq!(world.client.directory(change(2)).await.unwrap(), 2);
    assert_eq!(world.client.status().await.unwrap().instances, 0);
}

#[tokio::test]
async fn a_second_edge_of_the_same_directory_refuses_to_run() {
    let world = World::new().await;
    let options = edge::RunOptions {
        place: world.place(),
        build: "other".to_owned(),
        wait_for_directory: true,
        ingress_threads: std::num::NonZeroUsize::MIN,
    };
    assert!(matches!(
        edge::run(options).await,
        Err(edge::RunError::Locked(_))
    ));
    assert_eq!(world.client.hello().await.unwrap().build, "test");
}
