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
    known: Arc<watch::Sender<Known>>,
    reader: AbortHandle,
}

/// What a connection has told.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    status: Option<VmStatus>,
    /// Events that changed the status. An answer is worth less than an event that came after its question: QEMU
    /// may send the answer late.
    events: u64,
    /// The connection is gone; nothing more will be known.
    closed: bool,
}

impl Qmp {
    /// Negotiates on a fresh connection and learns the status; waits at most `deadline` for both.
    pub(crate) async fn start(stream: UnixStream, deadline: Duration) -> Result<Self, VmmError> {
        let (read, write) = stream.into_split();
        let pending = Pending::default();
        let known = Arc::new(watch::Sender::default());
        let reader =
            tokio::spawn(read_lines(read, Arc::clone(&pending), Arc::clone(&known))).abort_handle();
        let writer = tokio::sync::Mutex::new(write);
        let client = Self {
            writer,
            pending,
            next_id: AtomicU64::new(1),
            known,
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
        self.known.borrow().status
    }

    /// Waits until `wanted` holds for the status; false if the connection ended before.
    pub(crate) async fn wait_for(&self, wanted: impl Fn(VmStatus) -> bool) -> bool {
        let mut known = self.known.subscribe();
        let holds = |known: &Known| known.status.is_some_and(&wanted);
        let seen = known.wait_for(|known| known.closed || holds(known)).await;
        seen.is_ok_and(|known| holds(&known))
    }

    /// Asks QEMU for the status.
    pub(crate) async fn query_status(&self, deadline: Duration) -> Result<VmStatus, VmmError> {
        let before = self.known.borrow().events;
        let answer = self
            .run_within("query-status", Value::Null, deadline)
            .await?;
        let answered = message::status(answer["status"].as_str().unwrap_or_default());
        let mut current = answered;
        self.known.send_if_modified(|known| {
            let newest = known.events == before;
            if newest {
                known.status = Some(answered);
            }
            current = known.status.unwrap_or(answered);
            newest
        });
        Ok(current)
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
async fn read_lines(read: OwnedReadHalf, pending: Pending, known: Arc<watch::Sender<Known>>) {
    let mut reader = BufReader::new(read);
    let mut line = Vec::new();
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
                if let Some(sender) = lock(&pending).remove(&id) {
                    // Whoever asked may have given up.
                    let _ = sender.send(result);
                }
            }
            Ok(Message::Status(change)) => known.send_modify(|known| {
                known.status = Some(change.apply(known.status));
                known.events += 1;
            }),
            Ok(Message::Greeting | Message::Other) => {}
        }
    }
    known.send_modify(|known| known.closed = true);
    // Dropping the senders wakes all who wait.
    lock(&pending).clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays QEMU: takes three commands and answers the second question for the status late.
    #[tokio::test]
    async fn a_late_answer_does_not_hide_an_event() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let qemu = tokio::spawn(async move {
            let (read, mut write) = theirs.into_split();
            let mut lines = BufReader::new(read).lines();
            for answer in [
                "{\"QMP\":{}}\n{\"return\":{},\"id\":1}\n",
                "{\"event\":\"RESUME\"}\n{\"return\":{\"status\":\"inmigrate\"},\"id\":2}\n",
                "{\"return\":{\"status\":\"paused\"},\"id\":3}\n",
            ] {
                lines.next_line().await.unwrap().unwrap();
                write.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let deadline = Duration::from_secs(5);
        let qmp = Qmp::start(ours, deadline).await.unwrap();
        assert_eq!(qmp.status(), Some(VmStatus::Running));
        assert_eq!(qmp.query_status(deadline).await.unwrap(), VmStatus::Paused);
        qemu.await.unwrap();
        // The other end is closed: waiting ends without what was waited for.
        assert!(!qmp.wait_for(|status| status == VmStatus::Shutdown).await);
        assert!(!qmp.is_open() || qmp.run("stop", Value::Null).await.is_err());
    }
}
