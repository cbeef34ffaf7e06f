//! One connection to a QEMU.
//!
//! A reader task takes lines, hands answers to those who wait and keeps the status up to date from events; it ends
//! with the connection. Held by a machine's handle, which connects again when [`Qmp::is_open`] says no.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::message::{self, Message};
use crate::{ExitReason, VmStatus, VmmError};

/// Longest line taken from QEMU; the answers used here have a few hundred bytes.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// For commands that only change a state.
const COMMAND_DEADLINE: Duration = Duration::from_secs(5);

type Pending = Arc<Mutex<HashMap<u64, oneshot::Sender<Result<Value, String>>>>>;

#[derive(Debug)]
pub(crate) struct Qmp {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    pending: Pending,
    next_id: AtomicU64,
    status: watch::Receiver<Option<VmStatus>>,
    reader: AbortHandle,
}

impl Qmp {
    /// Negotiates on a fresh connection and learns the status; waits at most `deadline` for both.
    pub(crate) async fn start(stream: UnixStream, deadline: Duration) -> Result<Self, VmmError> {
        let (read, write) = stream.into_split();
        let pending = Pending::default();
        let (sender, status) = watch::channel(None);
        let reader = tokio::spawn(read_lines(read, Arc::clone(&pending), sender)).abort_handle();
        let writer = tokio::sync::Mutex::new(write);
        let client = Self {
            writer,
            pending,
            next_id: AtomicU64::new(1),
            status,
            reader,
        };
        client
            .run_within("qmp_capabilities", Value::Null, deadline)
            .await?;
        client.query_status(deadline).await?;
        Ok(client)
    }

    /// False once QEMU has closed the connection.
    pub(crate) fn is_open(&self) -> bool {
        !self.reader.is_finished()
    }

    /// Status as the events so far tell it.
    pub(crate) fn status(&self) -> Option<VmStatus> {
        *self.status.borrow()
    }

    /// Waits until `wanted` holds for the status; false if the connection ended before.
    pub(crate) async fn wait_for(&self, wanted: impl Fn(VmStatus) -> bool) -> bool {
        self.status
            .clone()
            .wait_for(|status| status.is_some_and(&wanted))
            .await
            .is_ok()
    }

    /// Asks QEMU for the status.
    pub(crate) async fn query_status(&self, deadline: Duration) -> Result<VmStatus, VmmError> {
        let answer = self
            .run_within("query-status", Value::Null, deadline)
            .await?;
        Ok(message::status(
            answer["status"].as_str().unwrap_or_default(),
        ))
    }

    /// Runs a command that answers at once.
    pub(crate) async fn run(
        &self,
        command: &'static str,
        arguments: Value,
    ) -> Result<Value, VmmError> {
        self.run_within(command, arguments, COMMAND_DEADLINE).await
    }

    /// Runs a command with a deadline of its own.
    pub(crate) async fn run_within(
        &self,
        command: &'static str,
        arguments: Value,
        deadline: Duration,
    ) -> Result<Value, VmmError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        lock(&self.pending).insert(id, sender);
        let answered = timeout(deadline, async {
            self.send(id, command, arguments).await?;
            answer.await.map_err(|_| closed())
        })
        .await;
        lock(&self.pending).remove(&id);
        match answered {
            Err(_) => Err(VmmError::Timeout {
                what: command,
                after: deadline,
            }),
            Ok(Err(error)) => Err(error),
            Ok(Ok(Err(message))) => Err(VmmError::Refused {
                command: command.to_owned(),
                message,
            }),
            Ok(Ok(Ok(value))) => Ok(value),
        }
    }

    async fn send(&self, id: u64, command: &str, arguments: Value) -> Result<(), VmmError> {
        let mut line = json!({ "execute": command, "id": id });
        if !arguments.is_null() {
            line["arguments"] = arguments;
        }
        let mut line = line.to_string();
        line.push('\n');
        let mut writer = self.writer.lock().await;
        writer
            .write_all(line.as_bytes())
            .await
            .map_err(VmmError::io("write to", Path::new("qmp")))
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

fn closed() -> VmmError {
    VmmError::Exited {
        reason: ExitReason::Unknown,
        stderr: String::new(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends when QEMU does, or says something that is not the protocol.
async fn read_lines(
    read: OwnedReadHalf,
    pending: Pending,
    status: watch::Sender<Option<VmStatus>>,
) {
    let mut reader = BufReader::new(read);
    let mut line = Vec::new();
    // QEMU sends an answer some time after it has found it, and an event in between goes before it. So events are
    // always right, and an answer is as long as there was none.
    let mut told_by_event = false;
    loop {
        line.clear();
        let read = (&mut reader)
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut line)
            .await;
        if !matches!(read, Ok(1..)) {
            break;
        }
        match message::parse(&line) {
            Err(error) => {
                tracing::warn!(%error, "QEMU sent a line that is not QMP");
                break;
            }
            Ok(Message::Answer { id, result }) => {
                // Before the answer is passed on, so that who asked for the status also sees it in the watch.
                if !told_by_event
                    && let Ok(Value::Object(answer)) = &result
                    && let Some(Value::String(name)) = answer.get("status")
                {
                    status.send_replace(Some(message::status(name)));
                }
                if let Some(sender) = lock(&pending).remove(&id) {
                    // Whoever asked may have given up.
                    let _ = sender.send(result);
                }
            }
            Ok(Message::Status(change)) => {
                told_by_event = true;
                status.send_modify(|status| *status = Some(change.apply(*status)));
            }
            Ok(Message::Greeting | Message::Other) => {}
        }
    }
    // Dropping the senders wakes all who wait.
    lock(&pending).clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What QEMU says, line by line.
    async fn read(lines: &[&str]) -> Option<VmStatus> {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
        theirs
            .write_all(lines.join("\n").as_bytes())
            .await
            .expect("room");
        theirs.write_all(b"\n").await.expect("room");
        drop(theirs);
        let (sender, status) = watch::channel(None);
        let (read, _write) = ours.into_split();
        read_lines(read, Pending::default(), sender).await;
        *status.borrow()
    }

    #[tokio::test]
    async fn an_answer_that_an_event_has_overtaken_says_nothing() {
        let waiting = r#"{"return": {"status": "inmigrate", "running": false}, "id": 2}"#;
        let paused = r#"{"return": {"status": "paused", "running": false}, "id": 3}"#;
        let resumed = r#"{"event": "RESUME", "timestamp": {}}"#;
        for (lines, status) in [
            (&[waiting][..], VmStatus::Prelaunch),
            (&[waiting, resumed], VmStatus::Running),
            (&[resumed, waiting], VmStatus::Running),
            (&[waiting, paused], VmStatus::Paused),
            (&[resumed, paused], VmStatus::Running),
        ] {
            assert_eq!(read(lines).await, Some(status), "{lines:?}");
        }
    }
}
