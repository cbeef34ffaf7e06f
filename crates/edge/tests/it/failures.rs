//! What clients are told when a guest does not answer.

use edge::Entry;
use model::State;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::guest::Guest;
use crate::requests::{Connection, get, get_with};
use crate::world::{World, eventually, free_port, local};

async fn world_at(port: u16, change: impl FnOnce(&mut Entry)) -> (World, u16) {
    let mut world = World::new().await;
    let listen = world.rule("example.com", "web", port).port;
    world.config.ingress.limits.response_ms = 200;
    world.config.ingress.limits.connect_ms = 200;
    world.config.ingress.limits.wake_ms = 200;
    change(world.instance("web", "127.0.0.1"));
    world.go().await;
    (world, listen)
}

/// A server that says these bytes to whoever asks, and closes.
async fn says(bytes: &'static str) -> u16 {
    let listener = TcpListener::bind(local(0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(bytes.as_bytes()).await;
        }
    });
    port
}

#[tokio::test]
async fn pages_say_what_was_tried_and_what_may_help() {
    let nobody = free_port();
    let (world, port) = world_at(nobody, |_| {}).await;
    let text = get(port, "example.com", "/").await;
    assert_eq!(
        (text.status.as_u16(), text.header("content-type")),
        (502, Some("text/plain; charset=utf-8"))
    );
    let tried =
        format!("Instance web refuses connections on port {nobody} (tried 127.0.0.1:{nobody}).");
    assert!(
        text.body.contains(&tried) && text.body.contains("0.0.0.0"),
        "{}",
        text.body
    );
    let html = get_with(port, "example.com", "/", &[("accept", "text/html,*/*")]).await;
    assert_eq!(
        html.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(
        html.body.starts_with("<!doctype html>") && html.body.contains(&tried),
        "{}",
        html.body
    );
    assert!(
        world
            .number("coppice_edge_requests_total", Some("5xx"))
            .await
            == 2.0
    );
}

#[tokio::test]
async fn answers_that_break_off_or_are_none_are_told_apart() {
    let (_world, port) = world_at(says("").await, |_| {}).await;
    let answer = get(port, "example.com", "/").await;
    assert!(
        answer.status == 502 && answer.body.contains("closed the connection"),
        "{}",
        answer.body
    );
    let (_world, port) = world_at(says("SSH-2.0-OpenSSH\r\n\r\n").await, |_| {}).await;
    let answer = get(port, "example.com", "/").await;
    assert!(
        answer.status == 502 && answer.body.contains("no HTTP/1.1"),
        "{}",
        answer.body
    );
}

#[tokio::test]
async fn silence_is_a_504() {
    let web = Guest::new("web", "127.0.0.1").await;
    let (_world, port) = world_at(web.port(), |_| {}).await;
    let answer = get(port, "example.com", "/never").await;
    assert!(
        answer.status == 504 && answer.body.contains("has not answered for 200ms"),
        "{}",
        answer.body
    );
    // A full queue of connections that nobody accepts: the kernel does not answer at all.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&local(0).into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let _filling: Vec<_> = (0..4)
        .map(|_| {
            let stream =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            stream.set_nonblocking(true).unwrap();
            let _ = stream.connect(&address.into());
            stream
        })
        .collect();
    let (_world, port) = world_at(address.port(), |_| {}).await;
    let answer = get(port, "example.com", "/").await;
    assert!(
        answer.status == 504 && answer.body.contains("did not accept a connection"),
        "{}",
        answer.body
    );
}

#[tokio::test]
async fn instances_that_do_not_run_say_in_which_state_they_are() {
    for (state, words) in [
        (State::Standby, "coppice restore"),
        (State::Stopped, "coppice start"),
        (State::Template, "fork it"),
        (State::Initializing, "starting"),
        (State::Paused, "in a moment"),
    ] {
        let (_world, port) = world_at(80, |entry| entry.state = state).await;
        let answer = get(port, "example.com", "/").await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("retry-after")),
            (503, Some("1"))
        );
        assert!(
            answer.body.contains(state.as_str()) && answer.body.contains(words),
            "{}",
            answer.body
        );
    }
}

#[tokio::test]
async fn a_request_that_meets_a_machine_standing_still_waits_for_what_it_becomes() {
    let web = Guest::new("web", "127.0.0.1").await;
    for (next, status) in [(State::Running, 200), (State::Standby, 503)] {
        let mut world = World::new().await;
        let port = world.rule("example.com", "web", web.port()).port;
        world.instance("web", "127.0.0.1").state = State::Paused;
        world.go().await;
        let client = tokio::spawn(async move { get(port, "example.com", "/").await });
        eventually("the request is held", async || {
            world.number("coppice_edge_held_requests", None).await == 1.0
        })
        .await;
        world.change("web", |entry| entry.state = next).await;
        let answer = client.await.unwrap();
        assert_eq!(answer.status, status, "{}", answer.body);
        if next == State::Standby {
            assert!(answer.body.contains("in state Standby"), "{}", answer.body);
        }
    }
}

#[tokio::test]
async fn a_guest_that_closed_an_idle_connection_costs_no_request() {
    let listener = TcpListener::bind(local(0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let first = Guest::on("first", listener);
    let (_world, port) = world_at(address.port(), |_| {}).await;
    let mut connection = Connection::open(port).await;
    assert_eq!(connection.get("example.com", "/").await.body, "first");
    drop(first);
    // The program starts again on the same port; the pooled connection is dead.
    let listener = loop {
        if let Ok(listener) = TcpListener::bind(address).await {
            break listener;
        }
        tokio::task::yield_now().await;
    };
    let _second = Guest::on("second", listener);
    assert_eq!(connection.get("example.com", "/").await.body, "second");
}

#[tokio::test]
async fn too_many_connections_are_closed_at_once() {
    let web = Guest::new("web", "127.0.0.1").await;
    let (mut world, port) = world_at(web.port(), |_| {}).await;
    world.config.ingress.limits.connections = 1;
    world.apply().await;
    let mut one = Connection::open(port).await;
    assert_eq!(one.get("example.com", "/").await.body, "web");
    assert_eq!(crate::requests::raw(port, "GET / HTTP/1.1\r\n").await, "");
    assert_eq!(one.get("example.com", "/").await.body, "web");
    drop(one);
    eventually("there is room again", async || {
        world.number("coppice_edge_client_connections", None).await == 0.0
    })
    .await;
    assert_eq!(get(port, "example.com", "/").await.body, "web");
}

#[tokio::test]
async fn the_access_log_has_a_line_for_each_request_and_no_queries() {
    let web = Guest::new("web", "127.0.0.1").await;
    let (world, port) = world_at(web.port(), |_| {}).await;
    get(port, "example.com", "/large?token=secret").await;
    get(port, "other.com", "/x\"y").await;
    let lines = || std::fs::read_to_string(world.place().access_log()).unwrap();
    eventually("both lines are written", async || {
        lines().lines().count() == 2
    })
    .await;
    let lines: Vec<serde_json::Value> = lines()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let large = lines.iter().find(|line| line["status"] == 200).unwrap();
    assert_eq!(large["path"], "/large");
    assert_eq!(
        (&large["instance"], &large["rule"], &large["host"]),
        (&"web".into(), &"rule-0".into(), &"example.com".into())
    );
    assert_eq!(
        (&large["client"], &large["sent_bytes"]),
        (&"127.0.0.1".into(), &(8 << 20).into())
    );
    assert!(
        lines
            .iter()
            .all(|line| !line.to_string().contains("secret"))
    );
    assert!(lines.iter().any(
        |line| line["status"] == 404 && line["problem"].as_str().unwrap().contains("other.com")
    ));
}
