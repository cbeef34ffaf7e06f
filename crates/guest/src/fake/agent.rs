//! The fake agent as tests hold it.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use protocol::{ExitStatus, GuestPhase, Identity, ProgramExit, StartSpec};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{broadcast, watch};

use super::connection;
use super::state::State;

/// See the module's comment. Clones share one machine.
#[derive(Debug, Clone)]
pub struct FakeAgent {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) exits: broadcast::Sender<ProgramExit>,
    pub(super) off: watch::Sender<bool>,
    /// As in the state; commands wait for it.
    frozen: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the program, if it runs.
    pub(super) fn end_program(&self, status: ExitStatus) -> Option<ProgramExit> {
        self.state().end_program(status)
    }

    /// Stops all commands, or lets them go on. No command makes a step after it was stopped.
    pub(super) fn set_frozen(&self, frozen: bool) {
        self.state().frozen = frozen;
        self.frozen.send_replace(frozen);
    }

    /// Does the work of a command whenever the machine is not frozen.
    pub(super) async fn while_thawed<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            // The sender lives in `self`.
            let _ = self.frozen.subscribe().wait_for(|frozen| !*frozen).await;
            let step = poll_fn(|context| {
                // While it is borrowed the flag cannot be set.
                let frozen = self.frozen.borrow();
                match *frozen {
                    true => Poll::Ready(None),
                    false => work.as_mut().poll(context).map(Some),
                }
            });
            if let Some(result) = step.await {
                return result;
            }
        }
    }

    pub(super) fn power_off(&self) {
        self.state().powered_off = true;
        self.off.send_replace(true);
    }
}

impl Default for FakeAgent {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeAgent {
    /// A freshly booted machine.
    pub fn new() -> Self {
        Self::from_state(State::default())
    }

    /// The machine as it is now, in bytes.
    pub fn save(&self) -> Vec<u8> {
        // Plain data in memory always serialises.
        postcard::to_allocvec(&*self.shared.state()).unwrap_or_default()
    }

    /// A machine of its own in the state that was saved.
    ///
    /// # Errors
    /// When the bytes come from elsewhere.
    pub fn load(bytes: &[u8]) -> Result<Self, postcard::Error> {
        Ok(Self::from_state(postcard::from_bytes(bytes)?))
    }

    /// Serves one connection until it ends or the machine is switched off. A machine serves one
    /// connection at a time.
    pub async fn serve<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        connection::serve(stream, Arc::clone(&self.shared)).await;
    }

    /// The program ends with this status.
    pub fn exit_program(&self, status: ExitStatus) {
        if let Some(exit) = self.shared.end_program(status) {
            // Without a connection the exit is told after the next Hello.
            let _ = self.shared.exits.send(exit);
        }
    }

    /// The next resume fails with this message.
    pub fn fail_next_resume(&self, message: impl Into<String>) {
        self.shared.state().fail_resume = Some(message.into());
    }

    /// How far the guest is.
    pub fn phase(&self) -> GuestPhase {
        self.shared.state().phase.clone()
    }

    /// Whether all of the machine but its agent stands still.
    pub fn is_frozen(&self) -> bool {
        self.shared.state().frozen
    }

    /// How often the machine rehearsed, before it was saved included.
    pub fn rehearsals(&self) -> u64 {
        self.shared.state().rehearsals
    }

    /// What the machine was started with.
    pub fn started(&self) -> Option<StartSpec> {
        self.shared.state().start.clone()
    }

    /// Who the machine was told to be, one entry for each resume, those before it was saved
    /// included.
    pub fn identities(&self) -> Vec<Identity> {
        self.shared.state().identities.clone()
    }

    /// The machine was switched off.
    pub fn is_powered_off(&self) -> bool {
        self.shared.state().powered_off
    }

    /// Waits until the machine was switched off.
    pub async fn powered_off(&self) {
        // The sender lives in `self`.
        let _ = self.shared.off.subscribe().wait_for(|off| *off).await;
    }

    fn from_state(state: State) -> Self {
        let off = watch::Sender::new(state.powered_off);
        let frozen = watch::Sender::new(state.frozen);
        let exits = broadcast::Sender::new(1);
        FakeAgent {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                exits,
                off,
                frozen,
            }),
        }
    }
}
