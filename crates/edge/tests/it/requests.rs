//! A client of ingress that says exactly what it is told to.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::world::{DEADLINE, local};

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) async fn read(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = timeout(DEADLINE, body.collect())
            .await
            .unwrap()
            .unwrap()
            .to_bytes();
        Self {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// A connection to a port of the edge.
pub(crate) struct Connection(pub(crate) SendRequest<Full<Bytes>>);

impl Connection {
    pub(crate) async fn open(port: u16) -> Self {
        let stream = TcpStream::connect(local(port)).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        Self(sender)
    }

    /// Sends a request and returns when the answer's head is there.
    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        timeout(DEADLINE, async {
            self.0.ready().await.unwrap();
            self.0.send_request(request).await.unwrap()
        })
        .await
        .unwrap()
    }

    pub(crate) async fn get(&mut self, host: &str, path: &str) -> Answer {
        Answer::read(self.send(request(host, path, &[])).await).await
    }
}

/// A GET without a body.
pub(crate) fn request(host: &str, path: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::get(path).header("host", host);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::default()).unwrap()
}

/// One GET on a connection of its own.
pub(crate) async fn get(port: u16, host: &str, path: &str) -> Answer {
    Connection::open(port).await.get(host, path).await
}

/// One GET with headers on a connection of its own.
pub(crate) async fn get_with(
    port: u16,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Answer {
    let mut connection = Connection::open(port).await;
    Answer::read(connection.send(request(host, path, headers)).await).await
}

/// Sends bytes as they are and reads until the edge closes.
pub(crate) async fn raw(port: u16, bytes: &str) -> String {
    let mut stream = TcpStream::connect(local(port)).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A connection that is reset has still said what it said.
    let _ = timeout(DEADLINE, stream.read_to_end(&mut answer))
        .await
        .unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}
