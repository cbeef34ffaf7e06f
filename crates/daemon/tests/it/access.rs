//! Who may do what.

use std::time::Duration;

use api::client::{Address, Client};
use axum::body::Body;
use axum::http::Request;
use daemon::http::{Listeners, serve};

use crate::world::{PATIENCE, World};

const EVERYTHING_OPEN: [&str; 3] = ["/health", "/spec.json", "/spec.yaml"];

fn request(method: &str, path: &str, authorization: Option<&str>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn without_a_token_that_holds_only_the_open_paths_answer() {
    let world = World::new().await;
    for path in EVERYTHING_OPEN {
        let answer = world.try_send(request("GET", path, None)).await.unwrap();
        assert_eq!(answer.status, 200, "{path}");
    }
    for authorization in [
        None,
        Some("Bearer".to_owned()),
        Some("Bearer nonsense".to_owned()),
        Some("Basic YTpi".to_owned()),
        Some(format!("Basic {}", world.daemon().token)),
        Some(format!("Bearer {}x", world.daemon().token)),
    ] {
        for (method, path) in [
            ("GET", "/instances"),
            ("POST", "/instances"),
            ("GET", "/metrics"),
            ("GET", "/nothing"),
        ] {
            let asked = request(method, path, authorization.as_deref());
            let answer = world.try_send(asked).await.unwrap();
            answer.refused(401, "Unauthorized");
        }
    }
}

#[tokio::test]
async fn a_scope_lets_what_it_names_and_a_refusal_names_the_scope() {
    let world = World::new().await;
    world.stopped("a").await;
    for (method, path, needed) in [
        ("GET", "/instances", "instance:read"),
        ("GET", "/instances/a", "instance:read"),
        ("GET", "/instances/a/logs?source=coppice", "instance:read"),
        ("POST", "/instances/a/start", "instance:write"),
        ("GET", "/instances/a/exec", "instance:write"),
        ("DELETE", "/instances/nobody", "instance:delete"),
        ("GET", "/images", "image:read"),
        ("POST", "/images", "image:write"),
        ("DELETE", "/images/nothing", "image:delete"),
        ("GET", "/capabilities", "resource:read"),
    ] {
        for scope in daemon::tokens::SCOPES {
            let scopes = Some(vec![scope.to_owned()]);
            let tokens = &world.daemon().tokens;
            let token = tokens
                .issue("test", Duration::from_secs(60), scopes)
                .unwrap();
            let asked = request(method, path, Some(&format!("Bearer {token}")));
            let answer = world.try_send(asked).await.unwrap();
            if scope == "*" || scope == needed {
                assert!(
                    !matches!(answer.status, 401 | 403),
                    "{scope} {method} {path}"
                );
            } else {
                let message = answer.refused(403, "Forbidden");
                assert!(message.contains(needed), "{message}");
            }
        }
    }
    world.settle().await;
    world.delete_everything().await;
}

#[tokio::test]
async fn the_unix_socket_needs_no_token_and_the_address_does() {
    let world = World::new().await;
    world.stopped("a").await;
    let socket = world.layout.socket();
    let router = world.daemon().router.clone();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let path = socket.clone();
    let opened = world.daemon().runtime().spawn(async move {
        let listeners = Listeners::open("127.0.0.1:0", &path).await.unwrap();
        let address = listeners.address().unwrap();
        (address, tokio::spawn(serve(listeners, router, stopped)))
    });
    let (address, server) = opened.await.unwrap();
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&socket).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "the socket is its owner's alone");

    let trusted = Client::new(Address::Unix(socket), None).unwrap();
    assert_eq!(trusted.get_instance("a").await.unwrap().name, "a");
    let tcp: Address = format!("http://{address}").parse().unwrap();
    let stranger = Client::new(tcp.clone(), None).unwrap();
    let refused = stranger.get_instance("a").await.unwrap_err().to_string();
    assert!(refused.contains("Authorization"), "{refused}");
    let known = Client::new(tcp, Some(&world.daemon().token)).unwrap();
    assert_eq!(known.get_instance("a").await.unwrap().name, "a");
    // A client that vanishes would never be missed otherwise. While an answer of the
    // server is on its way another timer stands in the table.
    let probed = async {
        while !probes_clients(address.port()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, probed).await.unwrap();

    stop.send(true).unwrap();
    drop((trusted, stranger, known));
    server.await.unwrap().unwrap();
    world.delete_everything().await;
}

/// Whether the kernel probes the clients of the server at `port`: each established
/// connection of its own has a keep-alive timer, kind 2 in the kernel's table.
fn probes_clients(port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let own = format!(":{port:04X}");
    let timers: Vec<String> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields[1].ends_with(&own) && fields[3] == "01")
        .map(|fields| fields[5][..2].to_owned())
        .collect();
    !timers.is_empty() && timers.iter().all(|timer| timer == "02")
}
