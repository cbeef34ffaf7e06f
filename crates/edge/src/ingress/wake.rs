//! Waking instances: one question to the daemon, however many requests wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use model::InstanceId;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::WakeVia;
use crate::live::Edge;

/// Between two attempts to reach a daemon that is away, doubled up to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Longest answer of the daemon that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Why an instance was not woken, in words for whoever waits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum WakeError {
    /// Trying again does not help.
    #[error("{0}")]
    Refused(String),
    /// The deadline passed; this was the last obstacle.
    #[error("{0}")]
    TooLate(String),
}

type Outcome = Option<Result<(), WakeError>>;

/// The wakes under way.
#[derive(Debug, Default)]
pub(crate) struct Wakes(Mutex<HashMap<InstanceId, watch::Receiver<Outcome>>>);

impl Wakes {
    fn under_way(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<InstanceId, watch::Receiver<Outcome>>> {
        // Single insertions and removals: good whatever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has the daemon wake an instance, or waits for a wake that is under way. The wake runs to its
/// end even if every request that waits for it goes away.
pub(super) async fn wake(edge: &Arc<Edge>, id: &InstanceId) -> Result<(), WakeError> {
    let mut outcome = join(edge, id);
    let outcome = outcome
        .wait_for(Option::is_some)
        .await
        .map(|outcome| outcome.clone());
    match outcome {
        Ok(Some(outcome)) => outcome,
        // The task that would have told it panicked.
        Ok(None) | Err(_) => Err(WakeError::Refused(
            "the edge failed to ask the daemon".to_owned(),
        )),
    }
}

fn join(edge: &Arc<Edge>, id: &InstanceId) -> watch::Receiver<Outcome> {
    let mut under_way = edge.wakes().under_way();
    // One whose task died without a word does not count.
    if let Some(outcome) = under_way
        .get(id)
        .filter(|outcome| outcome.has_changed().is_ok())
    {
        return outcome.clone();
    }
    let (tell, outcome) = watch::channel(None);
    under_way.insert(id.clone(), outcome.clone());
    let (edge, id) = (Arc::clone(edge), id.clone());
    tokio::spawn(async move {
        let asked = ask_until_answered(&edge, &id).await;
        match &asked {
            Ok(()) => edge.metrics().wakes_done.one(),
            Err(error) => {
                edge.metrics().wakes_failed.one();
                tracing::warn!(instance = %id, %error, "cannot wake an instance for a request");
            }
        }
        edge.wakes().under_way().remove(&id);
        tell.send_replace(Some(asked));
    });
    outcome
}

async fn ask_until_answered(edge: &Arc<Edge>, id: &InstanceId) -> Result<(), WakeError> {
    let live = edge.live();
    let Some(via) = &live.config.wake else {
        return Err(WakeError::Refused(
            "this edge was not told how to ask for it".to_owned(),
        ));
    };
    let deadline = Instant::now() + live.config.ingress.limits.wake();
    let mut pause = FIRST_PAUSE;
    loop {
        let obstacle = match timeout_at(deadline, ask(via, id)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(Answer::Refused(why))) => return Err(WakeError::Refused(why)),
            Ok(Err(Answer::Later(why))) => why,
            Err(_) => "the daemon did not finish in time".to_owned(),
        };
        if Instant::now() + pause >= deadline {
            return Err(WakeError::TooLate(obstacle));
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

enum Answer {
    Refused(String),
    Later(String),
}

async fn ask(via: &WakeVia, id: &InstanceId) -> Result<(), Answer> {
    let away = |error: &dyn std::fmt::Display| {
        Answer::Later(format!("the daemon cannot be reached: {error}"))
    };
    let stream = UnixStream::connect(&via.socket)
        .await
        .map_err(|error| away(&error))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| away(&error))?;
    let connection = tokio::spawn(connection);
    let request = Request::post(via.path.replace("{id}", id.as_str()))
        .header(hyper::header::HOST, "localhost")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Answer::Refused(format!("the path of the daemon is wrong: {error}")))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| away(&error))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await;
    connection.abort();
    if status.is_success() {
        return Ok(());
    }
    let said = body
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let why = said_in(&said).unwrap_or_else(|| format!("the daemon answered {status}"));
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return Err(Answer::Later(why));
    }
    Err(Answer::Refused(why))
}

/// The message in the daemon's error body.
fn said_in(body: &[u8]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    Some(body.get("message")?.as_str()?.chars().take(500).collect())
}
