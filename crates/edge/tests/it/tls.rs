//! HTTPS: certificates by name, HTTP/2, redirects, certificates that change.

use std::sync::Arc;

use bytes::Bytes;
use edge::{ApplyError, Certificate, CertificateSource, Rejected};
use http_body_util::Full;
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_rustls::{TlsConnector, rustls};

use crate::guest::Guest;
use crate::requests::{Answer, Connection, get, request};
use crate::world::{World, eventually, free_port, local};

/// A certificate that signs itself, for some names.
struct Own {
    pem: String,
    key: String,
    der: CertificateDer<'static>,
}

impl Own {
    fn new(names: &[&str]) -> Self {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        Self {
            pem: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
            der: made.cert.der().clone(),
        }
    }

    fn inline(&self, name: &str) -> Certificate {
        Certificate {
            name: name.to_owned(),
            source: CertificateSource::Inline {
                chain_pem: self.pem.clone(),
                key_pem: self.key.clone(),
            },
        }
    }
}

/// A handshake that succeeds only with one of these certificates.
async fn handshake(
    port: u16,
    name: &str,
    trusted: &[&Own],
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for own in trusted {
        roots.add(own.der.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let stream = TcpStream::connect(local(port)).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

async fn https(port: u16, sni: &str, host: &str, trusted: &[&Own]) -> Answer {
    let stream = handshake(port, sni, trusted, &[]).await.unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    Connection(sender).get(host, "/headers").await
}

#[tokio::test]
async fn each_name_has_its_certificate_and_one_port_serves_all() {
    let web = Guest::new("web", "127.0.0.1").await;
    let (one, wild) = (
        Own::new(&["one.com", "www.one.com"]),
        Own::new(&["*.example.com"]),
    );
    let mut world = World::new().await;
    let port = free_port();
    for hostname in ["one.com", "www.one.com", "{any}.example.com"] {
        world.rule_at(port, hostname, "web", web.port()).tls = true;
    }
    world.rule_at(port, "plain.com", "web", web.port());
    world.config.ingress.certificates = vec![one.inline("one"), wild.inline("wild")];
    world.instance("web", "127.0.0.1");
    world.go().await;
    let answer = https(port, "one.com", "one.com", &[&one]).await;
    assert!(
        answer.body.contains("x-forwarded-proto: https\n"),
        "{}",
        answer.body
    );
    assert_eq!(
        https(port, "a.example.com", "a.example.com", &[&wild])
            .await
            .status,
        200
    );
    // The same certificate may carry another name of it; another certificate's names it may not.
    assert_eq!(
        https(port, "one.com", "www.one.com", &[&one]).await.status,
        200
    );
    assert_eq!(
        https(port, "one.com", "a.example.com", &[&one])
            .await
            .status,
        421
    );
    assert!(
        handshake(port, "unknown.org", &[&one, &wild], &[])
            .await
            .is_err()
    );
    assert!(
        handshake(port, "a.b.example.com", &[&wild], &[])
            .await
            .is_err()
    );
    // Without TLS on the same port.
    assert_eq!(get(port, "plain.com", "/").await.body, "web");
    assert_eq!(get(port, "one.com", "/").await.status, 400);
}

#[tokio::test]
async fn clients_may_speak_http2_and_guests_see_http1() {
    let web = Guest::new("web", "127.0.0.1").await;
    let own = Own::new(&["example.com"]);
    let mut world = World::new().await;
    let rule = world.rule("example.com", "web", web.port());
    rule.tls = true;
    let port = rule.port;
    world.config.ingress.certificates = vec![own.inline("own")];
    world.instance("web", "127.0.0.1");
    world.go().await;
    let stream = handshake(port, "example.com", &[&own], &[b"h2"])
        .await
        .unwrap();
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    tokio::spawn(connection);
    let requests = (0..20).map(|number| {
        let request = Request::get(format!("https://example.com/headers?{number}"));
        let request = request.header("cookie", "a=1").header("cookie", "b=2");
        sender.send_request(request.body(Full::<Bytes>::default()).unwrap())
    });
    for (number, response) in futures::future::join_all(requests)
        .await
        .into_iter()
        .enumerate()
    {
        let body = Answer::read(response.unwrap()).await.body;
        assert!(
            body.starts_with(&format!("GET /headers?{number} HTTP/1.1\n")),
            "{body}"
        );
        assert!(
            body.contains("cookie: a=1; b=2\n") && body.contains("host: example.com\n"),
            "{body}"
        );
    }
    let upload = Request::post("https://example.com/length")
        .body(Full::new(Bytes::from(vec![0; 1 << 20])))
        .unwrap();
    assert_eq!(
        Answer::read(sender.send_request(upload).await.unwrap())
            .await
            .body,
        (1 << 20).to_string()
    );
}

#[tokio::test]
async fn plain_requests_are_sent_to_https() {
    let own = Own::new(&["example.com"]);
    let mut world = World::new().await;
    world.config.ingress.http_port = free_port();
    let rule = world.rule("example.com", "web", 80);
    (rule.tls, rule.redirect_http) = (true, true);
    let port = rule.port;
    world.config.ingress.certificates = vec![own.inline("own")];
    world.go().await;
    for at in [world.config.ingress.http_port, port] {
        let answer = get(at, "example.com:1", "/path?q=1").await;
        assert_eq!(answer.status, 308);
        assert_eq!(
            answer.header("location"),
            Some(format!("https://example.com:{port}/path?q=1").as_str())
        );
    }
    assert_eq!(
        get(world.config.ingress.http_port, "other.com", "/")
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn certificates_in_files_are_read_again_and_bad_ones_are_not_used() {
    let web = Guest::new("web", "127.0.0.1").await;
    let (old, new) = (
        Own::new(&["example.com"]),
        Own::new(&["example.com", "more.com"]),
    );
    let mut world = World::new().await;
    let (chain, key) = (
        world.directory.path().join("c.pem"),
        world.directory.path().join("k.pem"),
    );
    let put = |own: &Own| {
        std::fs::write(&key, &own.key).unwrap();
        std::fs::write(&chain, &own.pem).unwrap();
    };
    put(&old);
    let rule = world.rule("example.com", "web", web.port());
    rule.tls = true;
    let port = rule.port;
    world.config.ingress.limits.certificate_poll_ms = 10;
    let source = CertificateSource::Files {
        chain: chain.clone(),
        key: key.clone(),
    };
    world.config.ingress.certificates = vec![Certificate {
        name: "files".to_owned(),
        source,
    }];
    world.instance("web", "127.0.0.1");
    world.go().await;
    assert_eq!(
        https(port, "example.com", "example.com", &[&old])
            .await
            .status,
        200
    );

    std::fs::write(&chain, "no certificate").unwrap();
    let states = world.client.reload_certificates().await.unwrap();
    assert!(
        states[0]
            .problem
            .as_deref()
            .unwrap()
            .contains("CERTIFICATE"),
        "{states:?}"
    );
    assert_eq!(
        https(port, "example.com", "example.com", &[&old])
            .await
            .status,
        200
    );
    // By itself, too.
    put(&new);
    eventually("the new certificate is shown", async || {
        handshake(port, "example.com", &[&new], &[]).await.is_ok()
    })
    .await;
    let states = world.client.status().await.unwrap().certificates;
    assert_eq!(
        (states[0].covers.as_slice(), &states[0].problem),
        (
            ["example.com", "more.com"].map(String::from).as_slice(),
            &None
        )
    );
}

#[tokio::test]
async fn unusable_certificates_reject_the_document_by_name() {
    let (one, two) = (Own::new(&["one.com"]), Own::new(&["two.com"]));
    let world = World::new().await;
    let mut mixed = one.inline("mixed");
    mixed.source = CertificateSource::Inline {
        chain_pem: one.pem.clone(),
        key_pem: two.key.clone(),
    };
    let absent = Certificate {
        name: "absent".to_owned(),
        source: CertificateSource::Files {
            chain: "/nowhere/c.pem".into(),
            key: "/nowhere/k.pem".into(),
        },
    };
    for bad in [mixed, absent] {
        let mut config = world.config.clone();
        config.ingress.certificates = vec![one.inline("good"), bad.clone()];
        let Err(ApplyError::Rejected(why)) = world.client.apply(config).await else {
            panic!("{bad:?} was taken");
        };
        assert!(
            matches!(&why, Rejected::Certificate { certificate, .. } if *certificate == bad.name),
            "{why}"
        );
        assert!(!why.to_string().contains("PRIVATE KEY"));
    }
}

#[tokio::test]
async fn a_client_that_does_not_shake_hands_is_let_go() {
    let own = Own::new(&["example.com"]);
    let mut world = World::new().await;
    let rule = world.rule("example.com", "web", 80);
    rule.tls = true;
    let port = rule.port;
    world.config.ingress.certificates = vec![own.inline("own")];
    world.config.ingress.limits.header_ms = 100;
    world.go().await;
    // These return because the edge closes.
    crate::requests::raw(port, "").await;
    crate::requests::raw(port, "\u{16}\u{3}\u{1}").await;
    let still = Connection::open(port)
        .await
        .send(request("example.com", "/", &[]))
        .await;
    assert_eq!(still.status(), 400);
}
