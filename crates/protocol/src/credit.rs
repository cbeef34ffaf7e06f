//! Credit: how much of a session may be on its way.
//!
//! Each direction of a session begins with [`STREAM_WINDOW`]. A sender takes the cost of a message
//! from its [`SendWindow`] before it sends and waits when it is short. The receiver counts what its
//! consumer took in [`Unreported`] and gives it back in one `Credit` message when a quarter of the
//! window has come together. A reader that stops reading therefore stops its own session after one
//! window and nobody else's.

use crate::limits::{DATA_OVERHEAD, MAX_CHUNK, STREAM_WINDOW};

/// The sender's side of a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendWindow {
    available: u32,
}

impl Default for SendWindow {
    fn default() -> Self {
        SendWindow {
            available: STREAM_WINDOW,
        }
    }
}

impl SendWindow {
    /// Takes `cost`; `false` means wait for credit.
    #[must_use]
    pub fn take(&mut self, cost: u32) -> bool {
        match self.available.checked_sub(cost) {
            Some(rest) => {
                self.available = rest;
                true
            }
            None => false,
        }
    }

    /// Bytes of payload that one message may carry now; 0 means wait for credit.
    pub fn payload(&self) -> usize {
        (self.available.saturating_sub(DATA_OVERHEAD) as usize).min(MAX_CHUNK)
    }

    /// Gives credit back. More than was taken is ignored: the window never grows.
    pub fn give(&mut self, cost: u32) {
        self.available = self.available.saturating_add(cost).min(STREAM_WINDOW);
    }
}

/// The receiver's side of a window: what was consumed and not yet reported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unreported {
    cost: u32,
}

impl Unreported {
    /// Counts a consumed message. Returns the credit to report once enough has come together.
    #[must_use]
    pub fn consumed(&mut self, cost: u32) -> Option<u32> {
        self.cost = self.cost.saturating_add(cost);
        (self.cost >= STREAM_WINDOW / 4).then(|| std::mem::take(&mut self.cost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_runs_dry_and_refills() {
        let mut window = SendWindow::default();
        let chunk = MAX_CHUNK as u32 + DATA_OVERHEAD;
        let mut sent = 0;
        while window.take(chunk) {
            sent += chunk;
        }
        assert!(sent <= STREAM_WINDOW && sent + chunk > STREAM_WINDOW);
        window.give(chunk);
        assert!(window.take(chunk));
    }

    #[test]
    fn a_window_never_grows() {
        let mut window = SendWindow::default();
        window.give(u32::MAX);
        assert!(window.take(STREAM_WINDOW));
        assert!(!window.take(1));
        assert_eq!(window.payload(), 0);
    }

    #[test]
    fn credit_is_reported_before_the_sender_can_starve() {
        let (mut window, mut consumer) = (SendWindow::default(), Unreported::default());
        for _ in 0..10_000 {
            let len = window.payload();
            assert!(
                len > 0,
                "a consumer that takes everything at once must never stop its sender"
            );
            let cost = len as u32 + DATA_OVERHEAD;
            assert!(window.take(cost));
            if let Some(credit) = consumer.consumed(cost) {
                window.give(credit);
            }
        }
    }
}
