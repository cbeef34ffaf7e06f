//! Which request reaches which guest, and with which headers.

use edge::HeaderAuth;

use crate::guest::Guest;
use crate::requests::{Connection, get, get_with, raw};
use crate::world::{World, eventually, free_port};

#[tokio::test]
async fn host_names_and_captures_choose_the_guest() {
    let (web, api) = (
        Guest::new("web", "127.0.0.1").await,
        Guest::new("api", "127.0.0.2").await,
    );
    let mut world = World::new().await;
    let port = free_port();
    world.rule_at(port, "www.example.com", "web", web.port());
    world.rule_at(port, "{name}.example.com", "{name}", api.port());
    world.instance("web", "127.0.0.1");
    world.instance("api", "127.0.0.2");
    world.go().await;
    let mut connection = Connection::open(port).await;
    assert_eq!(connection.get("www.example.com", "/").await.body, "web");
    assert_eq!(connection.get("API.example.com.:80", "/").await.body, "api");
    let id = crate::world::id_of("api");
    assert_eq!(
        connection.get(&format!("{id}.example.com"), "/").await.body,
        "api"
    );

    let unknown = connection.get("example.org", "/").await;
    assert_eq!(unknown.status, 404);
    assert!(
        unknown.body.contains("No ingress answers for example.org"),
        "{}",
        unknown.body
    );
    let absent = connection.get("absent.example.com", "/").await;
    assert_eq!(absent.status, 404);
    assert!(
        absent.body.contains("no instance absent"),
        "{}",
        absent.body
    );
    assert_eq!(
        api.connections.load(std::sync::atomic::Ordering::SeqCst),
        1,
        "one connection serves both requests"
    );
}

#[tokio::test]
async fn guests_learn_who_asks_and_nothing_that_clients_invent() {
    let web = Guest::new("web", "127.0.0.1").await;
    let mut world = World::new().await;
    let port = world.rule("example.com", "web", web.port()).port;
    world.instance("web", "127.0.0.1");
    world.go().await;
    let sent = [
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.com"),
        ("forwarded", "for=6.6.6.6"),
        ("x-real-ip", "6.6.6.6"),
        ("te", "trailers"),
        ("accept-encoding", "br"),
    ];
    let answer = get_with(port, "example.com:8080", "/headers?q=1", &sent).await;
    let expected = "GET /headers?q=1 HTTP/1.1\n\
        accept-encoding: br\n\
        host: example.com:8080\n\
        te: trailers\n\
        x-forwarded-for: 127.0.0.1\n\
        x-forwarded-host: example.com:8080\n\
        x-forwarded-proto: http\n";
    assert_eq!(answer.body, expected);
    let back = get(port, "example.com", "/hop").await;
    assert_eq!(
        (
            back.header("x-kept"),
            back.header("x-secret-hop"),
            back.header("keep-alive")
        ),
        (Some("1"), None, None)
    );
}

#[tokio::test]
async fn a_guarded_rule_wants_its_header_before_anything_else() {
    let secret = "0123456789abcdef0123456789ABCDEF";
    let web = Guest::new("web", "127.0.0.1").await;
    let mut world = World::new().await;
    let rule = world.rule("{name}.example.com", "{name}", web.port());
    rule.header_auth = Some(HeaderAuth::new("X-Key", secret).unwrap());
    let port = rule.port;
    world.instance("web", "127.0.0.1");
    world.go().await;
    let wrong = secret.replace('F', "G");
    for headers in [
        vec![],
        vec![("x-key", wrong.as_str())],
        vec![("x-key", secret), ("x-key", secret)],
    ] {
        // Whether the instance exists cannot be told without the secret.
        for host in ["web.example.com", "absent.example.com"] {
            assert_eq!(get_with(port, host, "/", &headers).await.status, 403);
        }
    }
    let answer = get_with(port, "web.example.com", "/headers", &[("x-key", secret)]).await;
    assert_eq!(answer.status, 200);
    assert!(
        !answer.body.to_lowercase().contains("x-key"),
        "{}",
        answer.body
    );
    let log = world.place().access_log();
    let lines = || std::fs::read_to_string(&log).unwrap();
    eventually("seven lines are written", async || {
        lines().lines().count() == 7
    })
    .await;
    assert!(!lines().contains(secret) && !lines().contains(&wrong));
}

#[tokio::test]
async fn ambiguous_requests_are_refused() {
    let web = Guest::new("web", "127.0.0.1").await;
    let mut world = World::new().await;
    let port = world.rule("example.com", "web", web.port()).port;
    world.instance("web", "127.0.0.1");
    world.go().await;
    let refused = [
        "GET / HTTP/1.1\r\nconnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: example.com\r\nhost: other.com\r\nconnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: exa mple.com\r\nconnection: close\r\n\r\n",
        "CONNECT example.com:80 HTTP/1.1\r\nhost: example.com\r\nconnection: close\r\n\r\n",
    ];
    for bytes in refused {
        let answer = raw(port, bytes).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{bytes:?} got {answer:?}");
    }
    // With two lengths, what the guest sees has one, and nothing of the body becomes a request.
    let smuggled = "POST /length HTTP/1.1\r\nhost: example.com\r\nconnection: close\r\ncontent-length: 4\r\n\
        transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let answer = raw(port, smuggled).await;
    let whole = answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n5");
    assert!(whole || answer.starts_with("HTTP/1.1 400"), "{answer:?}");
    let absolute =
        "GET http://example.com/ HTTP/1.1\r\nhost: other.com\r\nconnection: close\r\n\r\n";
    assert!(raw(port, absolute).await.ends_with("web"));
}

#[tokio::test]
async fn heads_that_are_too_large_or_never_end_are_cut_off() {
    let mut world = World::new().await;
    let port = world.rule("example.com", "web", 80).port;
    world.config.ingress.limits.header_ms = 200;
    world.config.ingress.limits.header_bytes = 8 << 10;
    world.go().await;
    let large = format!(
        "GET / HTTP/1.1\r\nhost: example.com\r\nx: {}\r\n\r\n",
        "y".repeat(16 << 10)
    );
    assert!(raw(port, &large).await.starts_with("HTTP/1.1 431"));
    let many = format!(
        "GET / HTTP/1.1\r\nhost: example.com\r\n{}\r\n",
        "x: y\r\n".repeat(200)
    );
    assert!(raw(port, &many).await.starts_with("HTTP/1.1 431"));
    // These return because the edge closes.
    raw(port, "GET / HTTP/1.1\r\nhost: exam").await;
    raw(port, "").await;
}
