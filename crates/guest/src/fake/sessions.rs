//! Command and download sessions of a fake agent: one task each, ended by aborting it.

use std::sync::Arc;
use std::time::Duration;

use protocol::{
    CallId, DATA_OVERHEAD, EntryHeader, ExecSpec, ExitStatus, MAX_CHUNK, OutputKind, STREAM_WINDOW,
    ToHost, Unreported,
};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;

use super::agent::Shared;
use super::commands;

/// Input that may wait: as much as credit allows, and the end.
const INPUT_QUEUE: usize = (STREAM_WINDOW / DATA_OVERHEAD) as usize + 1;

/// Where messages for the host go. Without a receiver (the post-fork command) output is collected.
pub(super) type Outbox = mpsc::Sender<ToHost>;

/// A running session.
#[derive(Debug)]
pub(super) struct SessionHandle {
    pub(super) credit: Arc<Semaphore>,
    /// Dropped at the end of input.
    pub(super) input: Option<mpsc::Sender<Vec<u8>>>,
    task: AbortHandle,
}

impl Drop for SessionHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SessionHandle {
    /// The host consumed output.
    pub(super) fn give_credit(&self, cost: u32) {
        let room = (STREAM_WINDOW as usize).saturating_sub(self.credit.available_permits());
        self.credit.add_permits(room.min(cost as usize));
    }

    pub(super) fn is_over(&self) -> bool {
        self.task.is_finished()
    }
}

/// The streams of a command.
#[derive(Debug)]
pub(super) struct CommandStreams {
    call: CallId,
    input: mpsc::Receiver<Vec<u8>>,
    unreported: Unreported,
    sender: FlowControlled,
    terminal: bool,
}

/// Sends what costs credit.
#[derive(Debug)]
struct FlowControlled {
    outbox: Outbox,
    credit: Arc<Semaphore>,
}

impl FlowControlled {
    async fn send(&self, message: ToHost) {
        // Neither the semaphore nor the outbox closes while the task of the session lives.
        if let Ok(permit) = self.credit.acquire_many(message.cost()).await {
            permit.forget();
        }
        let _ = self.outbox.send(message).await;
    }
}

impl CommandStreams {
    /// The next input; `None` at its end.
    pub(super) async fn read(&mut self) -> Option<Vec<u8>> {
        let bytes = self.input.recv().await?;
        let cost = u32::try_from(bytes.len())
            .unwrap_or(u32::MAX)
            .saturating_add(DATA_OVERHEAD);
        if let Some(cost) = self.unreported.consumed(cost) {
            let _ = self
                .sender
                .outbox
                .send(ToHost::Credit {
                    call: self.call,
                    cost,
                })
                .await;
        }
        Some(bytes)
    }

    pub(super) async fn write(&mut self, kind: OutputKind, bytes: Vec<u8>) {
        let kind = if self.terminal {
            OutputKind::Stdout
        } else {
            kind
        };
        for chunk in bytes.chunks(MAX_CHUNK) {
            self.sender
                .send(ToHost::Data {
                    call: self.call,
                    kind,
                    bytes: chunk.to_vec(),
                })
                .await;
        }
    }
}

/// Starts a command.
pub(super) fn exec(
    call: CallId,
    spec: ExecSpec,
    shared: Arc<Shared>,
    outbox: Outbox,
) -> SessionHandle {
    let credit = Arc::new(Semaphore::new(STREAM_WINDOW as usize));
    let (input, queue) = mpsc::channel(INPUT_QUEUE);
    let sender = FlowControlled {
        outbox: outbox.clone(),
        credit: Arc::clone(&credit),
    };
    let terminal = spec.tty.is_some();
    let mut streams = CommandStreams {
        call,
        input: queue,
        unreported: Unreported::default(),
        sender,
        terminal,
    };
    let task = tokio::spawn(async move {
        let limit = spec
            .timeout_ms
            .filter(|ms| *ms > 0)
            .map_or(Duration::MAX, Duration::from_millis);
        let status = match tokio::time::timeout(
            limit,
            shared.while_thawed(commands::run(&spec, &shared, &mut streams)),
        )
        .await
        {
            Ok(code) => ExitStatus::exited(code),
            Err(_) => ExitStatus::killed(9).timed_out(),
        };
        let _ = outbox.send(ToHost::ExecExit { call, status }).await;
    });
    SessionHandle {
        credit,
        input: Some(input),
        task: task.abort_handle(),
    }
}

/// Starts a download of entries that are known already.
pub(super) fn download(
    call: CallId,
    entries: Vec<(EntryHeader, Vec<u8>)>,
    outbox: Outbox,
) -> SessionHandle {
    let credit = Arc::new(Semaphore::new(STREAM_WINDOW as usize));
    let sender = FlowControlled {
        outbox,
        credit: Arc::clone(&credit),
    };
    let task = tokio::spawn(async move {
        let count = entries.len();
        for (index, (header, bytes)) in entries.into_iter().enumerate() {
            sender
                .send(ToHost::Entry {
                    call,
                    header: Box::new(header),
                })
                .await;
            for chunk in bytes.chunks(MAX_CHUNK) {
                sender
                    .send(ToHost::Data {
                        call,
                        kind: OutputKind::File,
                        bytes: chunk.to_vec(),
                    })
                    .await;
            }
            sender
                .send(ToHost::EntryEnd {
                    call,
                    last: index + 1 == count,
                })
                .await;
        }
    });
    SessionHandle {
        credit,
        input: None,
        task: task.abort_handle(),
    }
}
