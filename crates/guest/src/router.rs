//! Who waits for which message of the guest.
//!
//! Shared by the driver task, which delivers, and by everybody who holds a call or a session. The
//! router never waits: a reply goes to a one-shot channel, session messages go to a queue whose
//! bound follows from the credit rules. What must be said without waiting (credit, cancellation) is
//! collected here and fetched by the driver.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::{CallId, DATA_OVERHEAD, GuestPhase, STREAM_WINDOW, ToGuest, ToHost};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};

use crate::{GuestEvent, LinkError};

/// Messages a session may have waiting: each flow controlled one costs at least the overhead, and a
/// few cost nothing.
pub(crate) const SESSION_QUEUE: usize = (STREAM_WINDOW / DATA_OVERHEAD) as usize + 8;

/// See the module's comment.
#[derive(Debug)]
pub(crate) struct Router {
    state: Mutex<State>,
    wake: Notify,
    closed: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    open: bool,
    phase: GuestPhase,
    frozen: bool,
    events: Option<mpsc::Sender<GuestEvent>>,
    waiting: HashMap<CallId, Waiting>,
    /// What to tell the agent about a session, at most one entry for each.
    notes: BTreeMap<CallId, Note>,
}

#[derive(Debug)]
enum Waiting {
    Call(oneshot::Sender<ToHost>),
    Session {
        queue: mpsc::Sender<ToHost>,
        credit: Arc<Semaphore>,
    },
}

#[derive(Debug, Clone, Copy)]
enum Note {
    Credit(u32),
    Cancel,
}

impl Router {
    pub(crate) fn new(events: mpsc::Sender<GuestEvent>) -> Self {
        Router {
            state: Mutex::new(State {
                open: true,
                phase: GuestPhase::Waiting,
                frozen: false,
                events: Some(events),
                waiting: HashMap::new(),
                notes: BTreeMap::new(),
            }),
            wake: Notify::new(),
            closed: watch::Sender::new(false),
        }
    }

    pub(crate) fn phase(&self) -> GuestPhase {
        self.lock().phase.clone()
    }

    pub(crate) fn set_phase(&self, phase: GuestPhase) {
        self.lock().phase = phase;
    }

    pub(crate) fn frozen(&self) -> bool {
        self.lock().frozen
    }

    pub(crate) fn set_frozen(&self, frozen: bool) {
        self.lock().frozen = frozen;
    }

    /// Waits until the connection is gone.
    pub(crate) async fn closed(&self) {
        // The sender lives in `self`, so waiting can only end by the value.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// Registers a call. The receiver fails when the connection is gone.
    pub(crate) fn expect_reply(&self, call: CallId) -> oneshot::Receiver<ToHost> {
        let (sender, receiver) = oneshot::channel();
        self.register(call, Waiting::Call(sender));
        receiver
    }

    /// Registers a session. The queue ends and the semaphore closes when the session or the
    /// connection is over.
    pub(crate) fn expect_session(&self, call: CallId) -> (mpsc::Receiver<ToHost>, Arc<Semaphore>) {
        let (queue, receiver) = mpsc::channel(SESSION_QUEUE);
        let credit = Arc::new(Semaphore::new(STREAM_WINDOW as usize));
        self.register(
            call,
            Waiting::Session {
                queue,
                credit: Arc::clone(&credit),
            },
        );
        (receiver, credit)
    }

    fn register(&self, call: CallId, waiting: Waiting) {
        let mut state = self.lock();
        if state.open {
            state.waiting.insert(call, waiting);
        } else {
            finish(waiting);
        }
    }

    /// Nobody waits for `call` any more. `true` when it is a session that the agent must be told to
    /// end.
    pub(crate) fn abandon(&self, call: CallId) -> bool {
        let mut state = self.lock();
        let Some(waiting) = state.waiting.remove(&call) else {
            return false;
        };
        state.notes.remove(&call);
        let is_session = matches!(waiting, Waiting::Session { .. });
        finish(waiting);
        is_session
    }

    /// The agent is to be told that a session is cancelled.
    pub(crate) fn note_cancel(&self, call: CallId) {
        let mut state = self.lock();
        if state.open {
            state.notes.insert(call, Note::Cancel);
            self.wake.notify_one();
        }
    }

    /// The consumer of a session took messages of this cost.
    pub(crate) fn consumed(&self, call: CallId, cost: u32) {
        let mut state = self.lock();
        if !state.waiting.contains_key(&call) {
            return;
        }
        match state.notes.entry(call).or_insert(Note::Credit(0)) {
            Note::Credit(sum) => *sum = sum.saturating_add(cost),
            Note::Cancel => {}
        }
        self.wake.notify_one();
    }

    /// Waits until [`Router::take_notes`] may have something.
    pub(crate) async fn noted(&self) {
        self.wake.notified().await;
    }

    /// What the agent must be told about sessions.
    pub(crate) fn take_notes(&self) -> Vec<ToGuest> {
        let notes = std::mem::take(&mut self.lock().notes);
        notes
            .into_iter()
            .map(|(call, note)| match note {
                Note::Credit(cost) => ToGuest::Credit { call, cost },
                Note::Cancel => ToGuest::Cancel { call },
            })
            .collect()
    }

    /// Delivers a message of the guest. Messages for abandoned calls are dropped.
    pub(crate) fn deliver(&self, message: ToHost) -> Result<(), LinkError> {
        match message {
            ToHost::HelloAck(_) | ToHost::HelloRefused { .. } => Err(LinkError::Unexpected),
            ToHost::ProgramExited(exit) => {
                let mut state = self.lock();
                state.phase = GuestPhase::Exited(exit.clone());
                let event = GuestEvent::ProgramExited {
                    code: exit.code,
                    signal: exit.signal,
                    message: exit.message,
                };
                // A full queue means that nobody reads events; the phase tells the same.
                let _ = state.events.as_ref().map(|events| events.try_send(event));
                Ok(())
            }
            ToHost::Credit { call, cost } => {
                self.give_credit(call, cost);
                Ok(())
            }
            ToHost::Started { call, .. }
            | ToHost::Resumed { call, .. }
            | ToHost::Done { call }
            | ToHost::Path { call, .. } => {
                self.reply(call, message);
                Ok(())
            }
            ToHost::Failed { call, .. }
            | ToHost::ExecExit { call, .. }
            | ToHost::Uploaded { call, .. }
            | ToHost::EntryEnd { call, last: true } => self.end(call, message),
            ToHost::Data { call, .. }
            | ToHost::Entry { call, .. }
            | ToHost::EntryEnd { call, last: false } => self.forward(call, message),
        }
    }

    /// The connection is gone: everybody who waits is told so.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.open = false;
        state.events = None;
        state.notes.clear();
        for (_, waiting) in state.waiting.drain() {
            finish(waiting);
        }
        self.closed.send_replace(true);
    }

    fn give_credit(&self, call: CallId, cost: u32) {
        if let Some(Waiting::Session { credit, .. }) = self.lock().waiting.get(&call) {
            let room = (STREAM_WINDOW as usize).saturating_sub(credit.available_permits());
            credit.add_permits(room.min(cost as usize));
        }
    }

    fn reply(&self, call: CallId, message: ToHost) {
        let mut state = self.lock();
        match &message {
            ToHost::Started { pid, .. } => state.phase = GuestPhase::Started { pid: *pid },
            ToHost::Resumed { .. } => state.frozen = false,
            _ => {}
        }
        if let Some(Waiting::Call(sender)) = state.waiting.remove(&call) {
            // The caller may have given up in this very moment.
            let _ = sender.send(message);
        }
    }

    fn end(&self, call: CallId, message: ToHost) -> Result<(), LinkError> {
        let mut state = self.lock();
        state.notes.remove(&call);
        match state.waiting.remove(&call) {
            Some(Waiting::Call(sender)) => {
                let _ = sender.send(message);
                Ok(())
            }
            Some(Waiting::Session { queue, credit }) => {
                credit.close();
                queued(queue.try_send(message))
            }
            None => Ok(()),
        }
    }

    fn forward(&self, call: CallId, message: ToHost) -> Result<(), LinkError> {
        match self.lock().waiting.get(&call) {
            Some(Waiting::Session { queue, .. }) => queued(queue.try_send(message)),
            Some(Waiting::Call(_)) => Err(LinkError::Unexpected),
            None => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under this lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An agent that keeps to its credit cannot overrun the queue; one that does not is cut off.
fn queued(result: Result<(), mpsc::error::TrySendError<ToHost>>) -> Result<(), LinkError> {
    match result {
        Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
        Err(mpsc::error::TrySendError::Full(_)) => Err(LinkError::Unexpected),
    }
}

/// Dropping the channels wakes the owner; a semaphore has to be closed.
fn finish(waiting: Waiting) {
    match waiting {
        Waiting::Call(_) => {}
        Waiting::Session { credit, .. } => credit.close(),
    }
}
