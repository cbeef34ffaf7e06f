//! How far a guest is whose first touches are recorded: told by whoever sees it, heard by who records.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pager::Mark;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// Tells of each mark once, and waits for nobody.
#[derive(Debug)]
pub(super) struct Marks {
    sender: mpsc::Sender<Mark>,
    ready: AtomicBool,
    executed: AtomicBool,
}

/// Marks in their order.
#[derive(Debug)]
pub(super) struct Coming {
    receiver: mpsc::Receiver<Mark>,
    record_for: Duration,
    /// When a guest counts as having had its first command.
    until: Option<Instant>,
    over: bool,
}

/// Marks of one guest. `record_for` after it was ready, it counts as having had its first command: one that serves
/// and is given none would be recorded for ever.
pub(super) fn marks(record_for: Duration) -> (Marks, Coming) {
    // A mark of each kind.
    let (sender, receiver) = mpsc::channel(2);
    let marks = Marks {
        sender,
        ready: AtomicBool::new(false),
        executed: AtomicBool::new(false),
    };
    let coming = Coming {
        receiver,
        record_for,
        until: None,
        over: false,
    };
    (marks, coming)
}

impl Marks {
    /// The guest's agent has answered.
    pub(super) fn ready(&self) {
        self.tell(&self.ready, Mark::Ready);
    }

    /// A command has given its result; the first one ends a recording.
    pub(super) fn executed(&self) {
        self.tell(&self.executed, Mark::FirstExec);
    }

    fn tell(&self, told: &AtomicBool, mark: Mark) {
        if !told.swap(true, Ordering::Relaxed) {
            // Nobody hears it where nothing is recorded any more.
            let _ = self.sender.try_send(mark);
        }
    }
}

impl Coming {
    /// The next mark; none after the last one, or of a machine that has ended.
    pub(super) async fn next(&mut self) -> Option<Mark> {
        if self.over {
            return None;
        }
        let mark = match self.until {
            None => self.receiver.recv().await?,
            Some(until) => match timeout_at(until, self.receiver.recv()).await {
                Ok(mark) => mark?,
                Err(_) => Mark::FirstExec,
            },
        };
        match mark {
            Mark::Ready => self.until = Some(Instant::now() + self.record_for),
            Mark::FirstExec => self.over = true,
        }
        Some(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn marks_come_once_and_in_their_order() {
        let (marks, mut coming) = marks(LONG);
        for _ in 0..3 {
            marks.ready();
        }
        marks.executed();
        marks.executed();
        drop(marks);
        assert_eq!(coming.next().await, Some(Mark::Ready));
        assert_eq!(coming.next().await, Some(Mark::FirstExec));
        assert_eq!(coming.next().await, None);
    }

    #[tokio::test]
    async fn a_guest_without_commands_is_recorded_for_a_while_after_it_was_ready() {
        let (marks, mut coming) = marks(Duration::from_millis(1));
        marks.ready();
        assert_eq!(coming.next().await, Some(Mark::Ready));
        assert_eq!(coming.next().await, Some(Mark::FirstExec));
        assert_eq!(coming.next().await, None, "it was the last one");
    }
}
