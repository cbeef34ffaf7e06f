//! The client of Firecracker's API: HTTP over a Unix socket, one request after the other, each with a deadline.

use std::pin::{Pin, pin};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::calls::Call;
use crate::{VmStatus, VmmError};

/// Longest answer that is read; real ones have a few hundred bytes.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// A connection to the API. It is driven by who waits for an answer: a task of its own would be one more thread to be
/// woken for every step, which takes milliseconds on a busy host.
pub(super) struct Api {
    sender: SendRequest<Full<Bytes>>,
    connection: Pin<Box<Connection<TokioIo<UnixStream>, Full<Bytes>>>>,
}

#[derive(Deserialize)]
struct Fault {
    fault_message: String,
}

#[derive(Deserialize)]
struct Info {
    state: String,
}

impl Api {
    pub(super) async fn start(stream: UnixStream) -> Result<Self, VmmError> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        Ok(Self {
            sender,
            connection: Box::pin(connection),
        })
    }

    /// Makes the call; what is refused is an error with Firecracker's reason.
    pub(super) async fn run(&mut self, call: &Call, deadline: Duration) -> Result<(), VmmError> {
        let (method, path) = (call.method.name(), call.path);
        let body = call.body.to_string();
        let (status, answer) = self.exchange(method, path, body, deadline).await?;
        if status.is_success() {
            return Ok(());
        }
        let message = serde_json::from_slice::<Fault>(&answer)
            .map_or_else(|_| format!("status {status}"), |fault| fault.fault_message);
        Err(VmmError::Refused {
            command: format!("{method} {path}"),
            message,
        })
    }

    /// What the machine does.
    pub(super) async fn status(&mut self, deadline: Duration) -> Result<VmStatus, VmmError> {
        let (_, answer) = self.exchange("GET", "/", String::new(), deadline).await?;
        let state = serde_json::from_slice::<Info>(&answer).map(|info| info.state);
        match state.as_deref() {
            Ok("Not started") => Ok(VmStatus::Prelaunch),
            Ok("Running") => Ok(VmStatus::Running),
            Ok("Paused") => Ok(VmStatus::Paused),
            _ => Err(VmmError::Refused {
                command: "GET /".into(),
                message: "its state is not one of those known".into(),
            }),
        }
    }

    async fn exchange(
        &mut self,
        method: &str,
        path: &'static str,
        body: String,
        deadline: Duration,
    ) -> Result<(StatusCode, Bytes), VmmError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("Host", "localhost")
            .header("Content-Type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| VmmError::unusable(error.to_string()))?;
        let Self { sender, connection } = self;
        let exchange = async {
            sender.ready().await.map_err(lost)?;
            let response = sender.send_request(request).await.map_err(lost)?;
            let status = response.status();
            let answer = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
                .collect()
                .await
                .map_err(|_| ended())?;
            Ok((status, answer.to_bytes()))
        };
        // How the connection ends is seen by the request that is under way.
        let driven = async {
            let mut exchange = pin!(exchange);
            tokio::select! {
                biased;
                answer = &mut exchange => answer,
                _ = connection => exchange.await,
            }
        };
        timeout(deadline, driven)
            .await
            .unwrap_or(Err(VmmError::Timeout {
                what: path,
                after: deadline,
            }))
    }
}

fn lost(_: hyper::Error) -> VmmError {
    ended()
}

/// The connection is lost when the process ends.
fn ended() -> VmmError {
    VmmError::Exited {
        reason: crate::ExitReason::Unknown,
        stderr: String::new(),
    }
}
