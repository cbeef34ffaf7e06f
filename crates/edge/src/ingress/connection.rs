//! One client's connection: TLS or not, HTTP/1.1 or HTTP/2, until it is idle, retired or lost.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};
use tokio_rustls::rustls::sign::CertifiedKey;

use super::exchange;
use super::patience::Patient;
use super::routes::Scheme;
use super::tls::H2;
use crate::config::Limits;
use crate::live::{Edge, Lane, Lifetime};
use crate::metrics::{Counted, Gauge};

/// The first byte of a TLS handshake record (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 22;
/// Requests at once on a connection with HTTP/2.
const MAX_STREAMS: u32 = 128;
/// Headers that hyper takes if nothing is said.
const DEFAULT_HEADERS: usize = 100;
/// hyper insists on room for this much of a request's head.
const MIN_HEADER_BYTES: usize = 8 << 10;

/// What the requests of a connection have in common.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) edge: Arc<Edge>,
    /// The thread that it is served on.
    pub(super) lane: Lane,
    pub(super) address: IpAddr,
    /// The port that it connected to.
    pub(super) port: u16,
    pub(super) scheme: Scheme,
    /// What the client was shown.
    pub(super) certificate: Option<Arc<CertifiedKey>>,
    /// The name the client gave in its handshake.
    pub(super) server_name: Option<String>,
    pub(super) lifetime: Lifetime,
    requests: AtomicU64,
    open: Gauge,
}

/// Serves a client, whose address comes second, until either side has enough.
pub(crate) async fn serve(
    (edge, _open): (Arc<Edge>, Counted),
    lane: Lane,
    (local, client): (SocketAddr, SocketAddr),
    stream: TcpStream,
    lifetime: Lifetime,
) {
    let live = edge.live();
    let limits = live.config.ingress.limits.clone();
    let client = Client {
        address: client.ip(),
        port: local.port(),
        scheme: Scheme::Http,
        certificate: None,
        server_name: None,
        lifetime: lifetime.clone(),
        requests: AtomicU64::new(0),
        open: Gauge::default(),
        lane,
        edge,
    };
    let speaks_tls = live.routes.speaks_tls(client.port);
    drop(live);
    let work = async {
        if speaks_tls
            && !matches!(first_byte(&stream, &limits).await, Some(byte) if byte != TLS_HANDSHAKE)
        {
            serve_tls(client, stream, &limits).await;
        } else {
            let stream = Patient::new(stream, limits.stalled_write());
            serve_http1(Arc::new(client), stream, &limits).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = lifetime.over() => {}
    }
}

async fn first_byte(stream: &TcpStream, limits: &Limits) -> Option<u8> {
    let mut byte = [0];
    match timeout(limits.header(), stream.peek(&mut byte)).await {
        Ok(Ok(1)) => Some(byte[0]),
        Ok(Ok(_) | Err(_)) | Err(_) => None,
    }
}

async fn serve_tls(mut client: Client, stream: TcpStream, limits: &Limits) {
    let stream = Patient::new(stream, limits.stalled_write());
    let accepted = timeout(limits.header(), client.edge.tls().acceptor().accept(stream)).await;
    let Ok(Ok(stream)) = accepted else {
        client.edge.metrics().tls_failures.one();
        return;
    };
    let (_, session) = stream.get_ref();
    let http2 = session.alpn_protocol() == Some(H2);
    client.scheme = Scheme::Https;
    client.server_name = session.server_name().map(str::to_ascii_lowercase);
    let certificates = client.edge.certificates();
    client.certificate = client
        .server_name
        .as_deref()
        .and_then(|name| certificates.find(name))
        .cloned();
    drop(certificates);
    let client = Arc::new(client);
    if http2 {
        serve_http2(client, stream, limits).await;
    } else {
        serve_http1(client, stream, limits).await;
    }
}

async fn serve_http1<S>(client: Arc<Client>, stream: S, limits: &Limits)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let lifetime = client.lifetime.clone();
    let service = service_fn(move |request| {
        let client = Arc::clone(&client);
        async move { Ok::<_, Infallible>(exchange::answer(&client, request).await) }
    });
    let mut builder = http1::Builder::new();
    // hyper keeps its default number of headers on the stack and any other on the heap.
    if limits.headers != DEFAULT_HEADERS {
        builder.max_headers(limits.headers);
    }
    let connection = builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header())
        .max_buf_size(limits.header_bytes.max(MIN_HEADER_BYTES))
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    // How a connection with a client ends is no news: requests have lines in the access log.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = lifetime.retired() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn serve_http2<S>(client: Arc<Client>, stream: S, limits: &Limits)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shared = Arc::clone(&client);
    let service = service_fn(move |request| {
        let client = Arc::clone(&shared);
        async move {
            client.requests.fetch_add(1, Ordering::Relaxed);
            let _open = client.open.hold();
            Ok::<_, Infallible>(exchange::answer(&client, request).await)
        }
    });
    let header_bytes = u32::try_from(limits.header_bytes).unwrap_or(u32::MAX);
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_header_list_size(header_bytes)
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(limits.header())
        .keep_alive_timeout(limits.header())
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let mut look = interval(limits.header());
    look.tick().await;
    let mut seen = 0;
    loop {
        tokio::select! {
            _ = connection.as_mut() => return,
            () = client.lifetime.retired() => break,
            _ = look.tick() => {
                let requests = client.requests.load(Ordering::Relaxed);
                if requests == seen && client.open.count() == 0 {
                    break;
                }
                seen = requests;
            }
        }
    }
    // Streams that are open are finished.
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}
