//! Requests for instances that sleep.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use edge::WakeVia;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use model::State;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

use crate::guest::Guest;
use crate::requests::{self, Answer, Connection, get};
use crate::world::{World, eventually, free_port, id_of};

/// Plays the daemon's API: counts the requests to wake, and answers each when the test lets it.
struct Daemon {
    asked: Arc<AtomicUsize>,
    answers: Arc<Semaphore>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Daemon {
    fn new(socket: PathBuf, status: StatusCode) -> Self {
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(socket).unwrap();
        let (asked, answers) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let (count, permits) = (Arc::clone(&asked), Arc::clone(&answers));
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (count, permits) = (Arc::clone(&count), Arc::clone(&permits));
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let (count, permits) = (Arc::clone(&count), Arc::clone(&permits));
                    async move {
                        assert_eq!(request.method(), "POST");
                        assert_eq!(
                            request.uri().path(),
                            format!("/instances/{}/restore", id_of("web"))
                        );
                        count.fetch_add(1, Ordering::SeqCst);
                        permits.acquire().await.unwrap().forget();
                        let body = Bytes::from_static(
                            b"{\"code\":\"x\",\"message\":\"there is no memory left\"}",
                        );
                        let mut response = Response::new(Full::new(body));
                        *response.status_mut() = status;
                        Ok::<_, Infallible>(response)
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self {
            asked,
            answers,
            server,
        }
    }
}

async fn asleep(target: u16, wake_ms: u64) -> (World, u16) {
    let mut world = World::new().await;
    let rule = world.rule("example.com", "web", target);
    rule.wake = true;
    let port = rule.port;
    world.config.wake = Some(WakeVia {
        socket: world.directory.path().join("daemon.sock"),
        path: "/instances/{id}/restore".to_owned(),
    });
    world.config.ingress.limits.wake_ms = wake_ms;
    let entry = world.instance("web", "127.0.0.1");
    (entry.state, entry.address) = (State::Standby, None);
    world.go().await;
    (world, port)
}

fn daemon(world: &World, status: StatusCode) -> Daemon {
    Daemon::new(world.directory.path().join("daemon.sock"), status)
}

async fn held(world: &World, count: u32) {
    eventually("the requests are held", async || {
        world.number("coppice_edge_held_requests", None).await == f64::from(count)
    })
    .await;
}

/// Waits until the daemon has woken one instance.
async fn woken(world: &World) {
    eventually("it was woken", async || {
        world.number("coppice_edge_wakes_total", Some("ok")).await == 1.0
    })
    .await;
}

/// The edge hears that the instance runs, on this host.
async fn runs(world: &mut World) {
    world
        .change("web", |entry| {
            (entry.state, entry.address) = (State::Running, Some("127.0.0.1".parse().unwrap()));
            entry.generation += 1;
        })
        .await;
}

#[tokio::test]
async fn many_requests_wake_an_instance_once_and_all_are_answered() {
    let target = free_port();
    let (mut world, port) = asleep(target, 20_000).await;
    let daemon = daemon(&world, StatusCode::OK);
    let clients: Vec<_> = (0..8)
        .map(|_| tokio::spawn(async move { get(port, "example.com", "/").await }))
        .collect();
    held(&world, 8).await;
    daemon.answers.add_permits(8);
    woken(&world).await;
    // It runs, but its program does not listen yet.
    runs(&mut world).await;
    eventually("connections are tried", async || {
        world
            .number("coppice_edge_guest_connects_total", Some("failed"))
            .await
            > 0.0
    })
    .await;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", target))
        .await
        .unwrap();
    let _web = Guest::on("awake", listener);
    for client in clients {
        assert_eq!(client.await.unwrap().body, "awake");
    }
    assert_eq!(daemon.asked.load(Ordering::SeqCst), 1);
    held(&world, 0).await;
}

#[tokio::test]
async fn a_request_that_meets_an_instance_on_its_way_to_sleep_wakes_it() {
    let target = free_port();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", target))
        .await
        .unwrap();
    let _web = Guest::on("awake", listener);
    let (mut world, port) = asleep(target, 20_000).await;
    let daemon = daemon(&world, StatusCode::OK);
    daemon.answers.add_permits(1);
    world
        .change("web", |entry| entry.state = State::Paused)
        .await;
    let client = tokio::spawn(async move { get(port, "example.com", "/").await });
    held(&world, 1).await;
    assert_eq!(daemon.asked.load(Ordering::SeqCst), 0);
    world
        .change("web", |entry| entry.state = State::Standby)
        .await;
    woken(&world).await;
    runs(&mut world).await;
    assert_eq!(client.await.unwrap().body, "awake");
}

/// A request that a guest has taken and not answered, when its machine goes to sleep.
async fn cut_off(method: hyper::Method, wake: bool) -> Answer {
    let web = Guest::new("old", "127.0.0.1").await;
    let other = tokio::net::TcpListener::bind(("127.0.0.2", web.port()))
        .await
        .unwrap();
    let _woken = Guest::on("woken", other);
    let (mut world, port) = asleep(web.port(), 20_000).await;
    world.config.ingress.rules[0].wake = wake;
    world.apply().await;
    let daemon = daemon(&world, StatusCode::OK);
    daemon.answers.add_permits(1);
    world
        .change("web", |entry| {
            (entry.state, entry.address) = (State::Running, Some("127.0.0.1".parse().unwrap()));
        })
        .await;
    let again = wake && method.is_idempotent();
    let mut request = requests::request("example.com", "/once", &[]);
    *request.method_mut() = method;
    let client = tokio::spawn(async move {
        let mut connection = Connection::open(port).await;
        Answer::read(connection.send(request).await).await
    });
    eventually("the guest has it", async || {
        web.requests.load(Ordering::SeqCst) == 1
    })
    .await;
    world
        .change("web", |entry| {
            (entry.state, entry.address) = (State::Standby, None);
        })
        .await;
    if again {
        eventually("it was woken", async || {
            world.number("coppice_edge_wakes_total", Some("ok")).await == 1.0
        })
        .await;
        world
            .change("web", |entry| {
                (entry.state, entry.address) = (State::Running, Some("127.0.0.2".parse().unwrap()));
                entry.generation += 1;
            })
            .await;
    }
    client.await.unwrap()
}

#[tokio::test]
async fn a_request_that_a_standby_cuts_off_is_sent_again_if_that_does_no_harm() {
    let answer = cut_off(hyper::Method::GET, true).await;
    assert_eq!(
        (answer.status.as_u16(), answer.body.as_str()),
        (200, "woken")
    );
    let answer = cut_off(hyper::Method::GET, false).await;
    assert!(
        answer.status == 503 && answer.body.contains("in state Standby"),
        "{}",
        answer.body
    );
    let answer = cut_off(hyper::Method::POST, true).await;
    assert!(
        answer.status == 502 && answer.body.contains("before it answered"),
        "{}",
        answer.body
    );
}

#[tokio::test]
async fn a_daemon_that_is_away_is_asked_again_until_it_is_back() {
    let web = Guest::new("web", "127.0.0.1").await;
    let (mut world, port) = asleep(web.port(), 20_000).await;
    let client = tokio::spawn(async move { get(port, "example.com", "/").await });
    held(&world, 1).await;
    let daemon = daemon(&world, StatusCode::OK);
    daemon.answers.add_permits(1);
    eventually("it is asked", async || {
        daemon.asked.load(Ordering::SeqCst) == 1
    })
    .await;
    world
        .change("web", |entry| {
            (entry.state, entry.address) = (State::Running, Some("127.0.0.1".parse().unwrap()));
        })
        .await;
    assert_eq!(client.await.unwrap().body, "web");
}

#[tokio::test]
async fn who_waited_in_vain_is_told_why() {
    // Nobody there.
    let (world, port) = asleep(80, 200).await;
    let answer = get(port, "example.com", "/").await;
    assert!(
        answer.status == 503 && answer.body.contains("daemon cannot be reached"),
        "{}",
        answer.body
    );
    // Refused.
    let daemon = daemon(&world, StatusCode::CONFLICT);
    daemon.answers.add_permits(1);
    let answer = get(port, "example.com", "/").await;
    assert!(
        answer.status == 503 && answer.body.contains("there is no memory left"),
        "{}",
        answer.body
    );
    assert_eq!(daemon.asked.load(Ordering::SeqCst), 1, "a refusal is final");
    // Woken, but it never runs.
    drop(daemon);
    let (world, port) = asleep(80, 200).await;
    let daemon = self::daemon(&world, StatusCode::OK);
    daemon.answers.add_permits(1);
    let answer = get(port, "example.com", "/").await;
    assert!(
        answer.status == 504 && answer.body.contains("still Standby"),
        "{}",
        answer.body
    );
}

#[tokio::test]
async fn the_number_of_held_requests_is_bounded() {
    let (mut world, port) = asleep(80, 20_000).await;
    let _daemon = daemon(&world, StatusCode::OK);
    world.config.ingress.limits.held_requests = 1;
    world.apply().await;
    let first = tokio::spawn(async move { get(port, "example.com", "/").await });
    held(&world, 1).await;
    let second = get(port, "example.com", "/").await;
    assert!(
        second.status == 503 && second.body.contains("Too many requests wait"),
        "{}",
        second.body
    );
    first.abort();
}

#[tokio::test]
async fn a_wrong_secret_wakes_nobody() {
    let (mut world, port) = asleep(80, 20_000).await;
    let daemon = daemon(&world, StatusCode::OK);
    let secret = edge::HeaderAuth::new("x-key", "0123456789abcdef0123456789ABCDEF").unwrap();
    world.config.ingress.rules[0].header_auth = Some(secret);
    world.apply().await;
    assert_eq!(get(port, "example.com", "/").await.status, 403);
    assert_eq!(daemon.asked.load(Ordering::SeqCst), 0);
}
