//! A fake machine.
//!
//! A task of its own hands connections to the guest; what flows on them passes a gate that is open only while the
//! machine runs. The condition is the one piece of state; handles and tasks watch it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use memory::MachineFacts;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::guest::FakeGuest;
use super::mapped::PageTable;
use crate::{ExitReason, ProcessId, VmmError};

/// Bytes on their way in each direction of a connection; about what a socket holds.
const PIPE_BYTES: usize = 64 << 10;

/// Connections waiting to be taken.
const BACKLOG: usize = 8;

/// What a machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Running,
    Paused,
    Shutdown,
    Ended(ExitReason),
}

impl Condition {
    /// The guest runs no more, and never will.
    fn is_final(self) -> bool {
        match self {
            Self::Running | Self::Paused => false,
            Self::Shutdown | Self::Ended(_) => true,
        }
    }
}

/// The image a machine runs on.
#[derive(Debug, Clone)]
pub(super) struct Base {
    pub(super) image_dir: PathBuf,
    pub(super) layers: usize,
    /// Of the image's RAM, if it maps that.
    pub(super) table: Option<Arc<PageTable>>,
}

pub(super) struct Machine {
    pub(super) process: ProcessId,
    pub(super) facts: MachineFacts,
    pub(super) base: Option<Base>,
    pub(super) run_dir: PathBuf,
    pub(super) guest: Arc<dyn FakeGuest>,
    pub(super) condition: watch::Sender<Condition>,
    captured: AtomicBool,
    connections: mpsc::Sender<DuplexStream>,
    hang_ups: watch::Sender<u64>,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Machine")
            .field("process", &self.process)
            .finish_non_exhaustive()
    }
}

impl Machine {
    pub(super) fn start(
        process: ProcessId,
        facts: MachineFacts,
        base: Option<Base>,
        run_dir: PathBuf,
        guest: Arc<dyn FakeGuest>,
        condition: watch::Sender<Condition>,
    ) -> Arc<Self> {
        let (connections, waiting) = mpsc::channel(BACKLOG);
        let (hang_ups, _) = watch::channel(0);
        tokio::spawn(serve(
            Arc::clone(&guest),
            waiting,
            condition.subscribe(),
            hang_ups.subscribe(),
        ));
        let captured = AtomicBool::new(false);
        Arc::new(Self {
            process,
            facts,
            base,
            run_dir,
            guest,
            condition,
            captured,
            connections,
            hang_ups,
        })
    }

    pub(super) fn table(&self) -> Option<&PageTable> {
        self.base.as_ref()?.table.as_deref()
    }

    pub(super) fn ended(&self) -> Option<ExitReason> {
        match *self.condition.borrow() {
            Condition::Ended(reason) => Some(reason),
            Condition::Running | Condition::Paused | Condition::Shutdown => None,
        }
    }

    /// Ends the machine unless it has ended before, and removes its mark.
    pub(super) fn end(&self, reason: ExitReason) {
        self.condition.send_if_modified(|condition| {
            let alive = !matches!(condition, Condition::Ended(_));
            if alive {
                *condition = Condition::Ended(reason);
            }
            alive
        });
        // It may never have been written.
        let _ = std::fs::remove_file(self.run_dir.join(super::driver::MARK));
    }

    /// Moves between running and paused.
    pub(super) fn set_running(&self, run: bool) -> Result<(), VmmError> {
        let mut outcome = Ok(());
        self.condition
            .send_if_modified(|condition| match (*condition, run) {
                (Condition::Paused, true) => {
                    *condition = Condition::Running;
                    self.captured.store(false, Ordering::Release);
                    true
                }
                (Condition::Running, false) => {
                    *condition = Condition::Paused;
                    true
                }
                (Condition::Running, true) | (Condition::Paused | Condition::Shutdown, false) => {
                    false
                }
                (Condition::Shutdown, true) => {
                    outcome = Err(VmmError::unusable("the guest has powered off"));
                    false
                }
                (Condition::Ended(reason), _) => {
                    outcome = Err(VmmError::Exited {
                        reason,
                        stderr: String::new(),
                    });
                    false
                }
            });
        outcome
    }

    /// Marks a capture; false if there was one since the machine ran last.
    pub(super) fn begin_capture(&self) -> bool {
        !self.captured.swap(true, Ordering::AcqRel)
    }

    /// Ends the connection that stands.
    pub(super) fn hang_up(&self) {
        self.hang_ups.send_modify(|times| *times += 1);
    }

    pub(super) async fn connect(&self) -> Result<DuplexStream, VmmError> {
        if let Some(table) = self.table() {
            table.touch();
        }
        let (host, guest) = duplex(PIPE_BYTES);
        // The receiver goes when the guest does.
        self.connections
            .send(guest)
            .await
            .map_err(|_| match self.ended() {
                Some(reason) => VmmError::Exited {
                    reason,
                    stderr: String::new(),
                },
                None => VmmError::unusable("the guest has powered off"),
            })?;
        Ok(host)
    }
}

/// Which way a pump carries bytes, as the guest sees it.
enum Direction {
    Inward,
    Outward,
}

/// Takes one connection at a time, as a VMM does, until the guest is gone.
async fn serve(
    guest: Arc<dyn FakeGuest>,
    mut waiting: mpsc::Receiver<DuplexStream>,
    mut condition: watch::Receiver<Condition>,
    mut hang_ups: watch::Receiver<u64>,
) {
    let gate = condition.clone();
    let connections = async {
        while let Some(outer) = waiting.recv().await {
            hang_ups.mark_unchanged();
            let (inner, near) = duplex(PIPE_BYTES);
            let (from_host, to_host) = tokio::io::split(outer);
            let (from_guest, to_guest) = tokio::io::split(near);
            let mut pumps = JoinSet::new();
            let (inward, outward) = (gate.clone(), gate.clone());
            pumps.spawn(async {
                pump(from_host, to_guest, inward).await;
                Direction::Inward
            });
            pumps.spawn(async {
                pump(from_guest, to_host, outward).await;
                Direction::Outward
            });
            let talk = guest.serve(Box::new(inner));
            tokio::pin!(talk);
            tokio::select! {
                () = &mut talk => while let Some(ended) = pumps.join_next().await {
                    if matches!(ended, Ok(Direction::Outward)) {
                        guest.heard();
                    }
                },
                // The host's end is closed: what the guest still says goes nowhere.
                _ = pumps.join_next() => {}
                _ = hang_ups.changed() => {}
            }
        }
    };
    tokio::select! {
        () = connections => {}
        _ = condition.wait_for(|now| now.is_final()) => {}
    }
}

/// Passes bytes on while the machine runs.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut gate: watch::Receiver<Condition>,
) {
    let mut buffer = vec![0; 8 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let open = gate.wait_for(|now| *now == Condition::Running || now.is_final());
        if !matches!(open.await.as_deref(), Ok(Condition::Running)) {
            break;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    // The other side sees the end, or is gone itself.
    let _ = to.shutdown().await;
}
