//! What a guest reports unasked.

use tokio::sync::mpsc;

/// Something that happened in a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestEvent {
    /// The machine's program ended. Reported again on each new connection until
    /// [`crate::Link::acknowledge_exit`].
    ProgramExited {
        /// Exit status, 128 + signal, or 126/127 when the program could not be run.
        code: i32,
        /// The signal that killed it.
        signal: Option<i32>,
        /// Why it could not be run, or what killed it.
        message: Option<String>,
    },
    /// The connection is gone. Last event.
    Closed,
}

/// Events of one connection, in order. Holding it does not keep the connection open.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<GuestEvent>,
}

impl Events {
    /// A program ends once; room for a few repetitions costs nothing.
    const CAPACITY: usize = 4;

    pub(crate) fn channel() -> (mpsc::Sender<GuestEvent>, Events) {
        let (sender, receiver) = mpsc::channel(Self::CAPACITY);
        (sender, Events { receiver })
    }

    /// The next event; [`GuestEvent::Closed`] for ever once the connection is gone. Cancel safe.
    pub async fn next(&mut self) -> GuestEvent {
        self.receiver.recv().await.unwrap_or(GuestEvent::Closed)
    }
}
