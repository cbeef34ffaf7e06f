//! A web server that plays the program in a guest.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

type Body = BoxBody<Bytes, hyper::Error>;

/// A server on an address of the loopback; it ends with this value.
pub(crate) struct Guest {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    pub(crate) requests: Arc<AtomicUsize>,
    /// Lets `/steps` send its next chunk.
    pub(crate) steps: Arc<Semaphore>,
    server: JoinHandle<()>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Guest {
    /// Serves on a free port of an address.
    pub(crate) async fn new(name: &'static str, address: &str) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        Self::on(name, listener)
    }

    pub(crate) fn on(name: &'static str, listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let requests = Arc::new(AtomicUsize::new(0));
        let steps = Arc::new(Semaphore::new(0));
        let program = Program {
            name,
            requests: Arc::clone(&requests),
            steps: Arc::clone(&steps),
        };
        let counted = Arc::clone(&connections);
        let server = tokio::spawn(async move {
            // Connections end with the server, as they do when a machine ends.
            let mut open = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let program = program.clone();
                let service = service_fn(move |request| {
                    let program = program.clone();
                    async move { Ok::<_, Infallible>(program.answer(request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades();
                open.spawn(connection);
            }
        });
        Self {
            address,
            connections,
            requests,
            steps,
            server,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }
}

#[derive(Clone)]
struct Program {
    name: &'static str,
    requests: Arc<AtomicUsize>,
    steps: Arc<Semaphore>,
}

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into())
        .map_err(|never| match never {})
        .boxed()
}

impl Program {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        match request.uri().path() {
            "/headers" => Response::new(full(shown(&request))),
            "/length" => Response::new(full(length(request.into_body()).await)),
            "/large" => Response::new(full(vec![b'x'; 8 << 20])),
            "/steps" => Response::new(self.stepwise()),
            "/never" => std::future::pending().await,
            "/once" if self.name == "old" => std::future::pending().await,
            "/late" => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                Response::new(full(self.name))
            }
            "/trailers" => trailers(),
            "/hop" => hop_by_hop(),
            "/echo" => echo(request),
            "/empty" => {
                let mut response = Response::new(full(""));
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
            _ => Response::new(full(self.name)),
        }
    }

    /// A chunk for each permit of the test, without end.
    fn stepwise(&self) -> Body {
        let (chunks, receiver) = mpsc::channel(1);
        let steps = Arc::clone(&self.steps);
        tokio::spawn(async move {
            for number in 0.. {
                steps.acquire().await.unwrap().forget();
                let chunk = Bytes::from(format!("data: {number}\n\n"));
                if chunks.send(Ok(Frame::data(chunk))).await.is_err() {
                    return;
                }
            }
        });
        let stream = futures::stream::unfold(receiver, async |mut receiver| {
            let frame = receiver.recv().await?;
            Some((frame, receiver))
        });
        StreamBody::new(stream).boxed()
    }
}

/// The head of a request as it arrived, a line for each header.
fn shown(request: &Request<Incoming>) -> String {
    let mut lines: Vec<_> = request
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()))
        .collect();
    lines.sort();
    format!(
        "{} {} {:?}\n{}",
        request.method(),
        request.uri(),
        request.version(),
        lines.concat()
    )
}

async fn length(mut body: Incoming) -> String {
    let (mut bytes, mut trailers) = (0, String::new());
    while let Some(frame) = body.frame().await {
        match frame.unwrap().into_data() {
            Ok(data) => bytes += data.len(),
            Err(frame) => trailers = format!("{:?}", frame.into_trailers().unwrap()),
        }
    }
    format!("{bytes} {trailers}").trim_end().to_owned()
}

fn trailers() -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("7"));
    let frames = [
        Ok(Frame::data(Bytes::from_static(b"text"))),
        Ok(Frame::trailers(trailers)),
    ];
    let mut response = Response::new(StreamBody::new(futures::stream::iter(frames)).boxed());
    response
        .headers_mut()
        .insert("trailer", HeaderValue::from_static("x-sum"));
    response
}

fn hop_by_hop() -> Response<Body> {
    let mut response = Response::new(full("hop"));
    let headers = response.headers_mut();
    headers.insert("connection", HeaderValue::from_static("x-secret-hop"));
    headers.insert("x-secret-hop", HeaderValue::from_static("1"));
    headers.insert("keep-alive", HeaderValue::from_static("timeout=1"));
    headers.insert("x-kept", HeaderValue::from_static("1"));
    response
}

/// After the handshake, sends back what it gets in any protocol.
fn echo(request: Request<Incoming>) -> Response<Body> {
    let mut response = Response::new(full(""));
    let Some(protocol) = request.headers().get("upgrade").cloned() else {
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        return response;
    };
    let headers = response.headers_mut();
    headers.insert("connection", HeaderValue::from_static("upgrade"));
    headers.insert("upgrade", protocol);
    if let Some(key) = request.headers().get("sec-websocket-key") {
        let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
        headers.insert(
            "sec-websocket-accept",
            HeaderValue::from_str(&accept).unwrap(),
        );
        tokio::spawn(async move {
            use futures::{SinkExt as _, StreamExt as _};
            use tokio_tungstenite::WebSocketStream;
            use tokio_tungstenite::tungstenite::protocol::Role;
            let stream = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
            let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
            while let Some(Ok(message)) = socket.next().await {
                if message.is_close() || socket.send(message).await.is_err() {
                    return;
                }
            }
        });
    } else {
        tokio::spawn(async move {
            let mut stream = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut bytes).await {
                stream.write_all(&bytes[..length]).await.unwrap();
            }
        });
    }
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response
}
