//! Bodies, websockets and other connections that stay.

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use model::State;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::guest::Guest;
use crate::requests::{Answer, Connection, get, request};
use crate::world::{DEADLINE, World, eventually, local};

async fn world_with(guest: &Guest) -> (World, u16) {
    let mut world = World::new().await;
    let port = world.rule("example.com", "web", guest.port()).port;
    world.instance("web", "127.0.0.1");
    world.go().await;
    (world, port)
}

async fn chunk(body: &mut Incoming) -> String {
    let frame = timeout(DEADLINE, body.frame())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let web = Guest::new("web", "127.0.0.1").await;
    let (world, port) = world_with(&web).await;
    let mut connection = Connection::open(port).await;
    let mut body = connection
        .send(request("example.com", "/steps", &[]))
        .await
        .into_body();
    for number in 0..3 {
        // The guest sends the next only now: nothing may wait for more.
        web.steps.add_permits(1);
        assert_eq!(chunk(&mut body).await, format!("data: {number}\n\n"));
    }
    drop((body, connection));
    eventually(
        "the guest's connection ends with its client's",
        async || world.number("coppice_edge_guest_connections", None).await == 0.0,
    )
    .await;
}

#[tokio::test]
async fn large_bodies_pass_both_ways_and_connections_are_used_again() {
    let web = Guest::new("web", "127.0.0.1").await;
    let (_world, port) = world_with(&web).await;
    let mut connection = Connection::open(port).await;
    let upload = Request::post("/length").header("host", "example.com");
    let upload = upload
        .body(Full::new(Bytes::from(vec![0; 5 << 20])))
        .unwrap();
    assert_eq!(
        Answer::read(connection.send(upload).await).await.body,
        (5 << 20).to_string()
    );
    assert_eq!(
        connection.get("example.com", "/large").await.body.len(),
        8 << 20
    );
    assert_eq!(connection.get("example.com", "/empty").await.status, 204);
    let head = Request::head("/large")
        .header("host", "example.com")
        .body(Full::default())
        .unwrap();
    let head = connection.send(head).await;
    assert_eq!(
        head.headers()["content-length"],
        (8 << 20).to_string().as_str()
    );
    drop(head);
    assert_eq!(connection.get("example.com", "/").await.body, "web");
    assert!(web.requests.load(std::sync::atomic::Ordering::SeqCst) == 5);
    assert!(web.connections.load(std::sync::atomic::Ordering::SeqCst) < 5);
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let web = Guest::new("web", "127.0.0.1").await;
    let (_world, port) = world_with(&web).await;
    let bytes = "POST /length HTTP/1.1\r\nhost: example.com\r\nconnection: close\r\ntrailer: x-sum\r\n\
        transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 9\r\n\r\n";
    let answer = crate::requests::raw(port, bytes).await;
    assert!(answer.ends_with("2 {\"x-sum\": \"9\"}"), "{answer}");
    let mut connection = Connection::open(port).await;
    let response = connection
        .send(request("example.com", "/trailers", &[("te", "trailers")]))
        .await;
    let body = timeout(DEADLINE, response.into_body().collect())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(body.trailers().unwrap()["x-sum"], "7");
}

#[tokio::test]
async fn websockets_carry_messages() {
    let web = Guest::new("web", "127.0.0.1").await;
    let (mut world, port) = world_with(&web).await;
    let stream = TcpStream::connect(local(port)).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async("ws://example.com/echo", stream)
        .await
        .unwrap();
    for text in ["one", "two"] {
        socket.send(Message::text(text)).await.unwrap();
        let echo = timeout(DEADLINE, socket.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(echo, Message::text(text));
    }
    assert!(
        world
            .number("coppice_edge_upgraded_connections", None)
            .await
            == 1.0
    );
    // A new document does not touch it; a new generation ends it.
    world.rule("other.com", "web", web.port());
    world.apply().await;
    socket.send(Message::text("three")).await.unwrap();
    assert!(
        timeout(DEADLINE, socket.next())
            .await
            .unwrap()
            .unwrap()
            .is_ok()
    );
    world.change("web", |entry| entry.generation += 1).await;
    let end = timeout(DEADLINE, socket.next()).await.unwrap();
    assert!(!matches!(end, Some(Ok(Message::Text(_)))), "{end:?}");
}

#[tokio::test]
async fn any_protocol_may_follow_the_handshake() {
    let web = Guest::new("web", "127.0.0.1").await;
    let (_world, port) = world_with(&web).await;
    let mut connection = Connection::open(port).await;
    let headers = [("connection", "Upgrade"), ("upgrade", "made-up/1")];
    let response = connection
        .send(request("example.com", "/echo", &headers))
        .await;
    assert_eq!(
        (
            response.status().as_u16(),
            response.headers()["upgrade"].to_str().unwrap()
        ),
        (101, "made-up/1")
    );
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    stream.write_all(b"bytes").await.unwrap();
    let mut echo = [0; 5];
    timeout(DEADLINE, stream.read_exact(&mut echo))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&echo, b"bytes");
    assert_eq!(get(port, "example.com", "/echo").await.status, 426);
}

#[tokio::test]
async fn silence_ends_a_body_and_a_stream_of_signs_of_life_does_not() {
    let web = Guest::new("web", "127.0.0.1").await;
    let mut world = World::new().await;
    let port = world.rule("example.com", "web", web.port()).port;
    world.config.ingress.limits.idle_ms = 150;
    world.instance("web", "127.0.0.1");
    world.go().await;
    let mut connection = Connection::open(port).await;
    let mut body = connection
        .send(request("example.com", "/steps", &[]))
        .await
        .into_body();
    for number in 0..6 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        web.steps.add_permits(1);
        assert_eq!(chunk(&mut body).await, format!("data: {number}\n\n"));
    }
    let end = timeout(DEADLINE, body.frame()).await.unwrap().unwrap();
    assert!(end.is_err());
}

#[tokio::test]
async fn connections_of_an_old_generation_are_never_used_again() {
    let old = Guest::new("old", "127.0.0.1").await;
    let (mut world, port) = world_with(&old).await;
    let mut client = Connection::open(port).await;
    assert_eq!(client.get("example.com", "/").await.body, "old");
    // The same address and port, another machine: what was open still leads to the old one.
    world
        .change("web", |entry| entry.state = State::Standby)
        .await;
    assert_eq!(client.get("example.com", "/").await.status, 503);
    world
        .change("web", |entry| {
            entry.state = State::Running;
            entry.generation += 1;
        })
        .await;
    assert_eq!(client.get("example.com", "/").await.body, "old");
    assert_eq!(
        old.connections.load(std::sync::atomic::Ordering::SeqCst),
        2,
        "the pooled connection was left"
    );
    eventually("the pooled connection is closed", async || {
        world.number("coppice_edge_guest_connections", None).await == 1.0
    })
    .await;
}
