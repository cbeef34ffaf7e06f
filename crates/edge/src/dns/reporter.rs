//! Having addresses allowed before a guest learns them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::control::Resolved;

/// For the daemon to allow the addresses of a name; then the guest gets SERVFAIL and asks again.
pub const ACK_DEADLINE: Duration = Duration::from_secs(1);

/// Questions to the subscriber that may wait.
const WAITING: usize = 256;

/// Asks whoever subscribed last.
#[derive(Debug, Default)]
pub(crate) struct Reporter(Mutex<Option<mpsc::Sender<Question>>>);

/// What the subscriber is asked.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) resolved: Resolved,
    tell: oneshot::Sender<bool>,
}

impl Question {
    /// Whether the guest still waits.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.tell.is_closed()
    }

    pub(crate) fn answer(self, accepted: bool) {
        // Nobody waits any more once the deadline is over.
        let _ = self.tell.send(accepted);
    }
}

/// The subscriber's end.
#[derive(Debug)]
pub(crate) struct Subscription(mpsc::Receiver<Question>);

impl Subscription {
    /// The next question; `None` when somebody else subscribed.
    pub(crate) async fn next(&mut self) -> Option<Question> {
        self.0.recv().await
    }
}

impl Reporter {
    fn subscriber(&self) -> std::sync::MutexGuard<'_, Option<mpsc::Sender<Question>>> {
        // A single assignment: good whatever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the place of whoever subscribed before.
    pub(crate) fn subscribe(&self) -> Subscription {
        let (sender, receiver) = mpsc::channel(WAITING);
        *self.subscriber() = Some(sender);
        Subscription(receiver)
    }

    pub(crate) fn is_subscribed(&self) -> bool {
        self.subscriber()
            .as_ref()
            .is_some_and(|subscriber| !subscriber.is_closed())
    }

    /// Whether the addresses are allowed now. No subscriber, no answer, no.
    pub(super) async fn allow(&self, resolved: Resolved) -> bool {
        let Some(subscriber) = self.subscriber().clone() else {
            return false;
        };
        let (tell, answer) = oneshot::channel();
        if subscriber.try_send(Question { resolved, tell }).is_err() {
            return false;
        }
        matches!(timeout(ACK_DEADLINE, answer).await, Ok(Ok(true)))
    }
}
