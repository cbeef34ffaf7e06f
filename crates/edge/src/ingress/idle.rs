//! A deadline that moves with every sign of life.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// A deadline that moves with every sign of life. Costs nothing until somebody waits.
#[derive(Debug)]
pub(super) struct Idle {
    limit: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whether the deadline counts from the beginning of the current wait.
    armed: bool,
}

impl Idle {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            sleep: None,
            armed: false,
        }
    }

    /// Something happened.
    pub(super) fn alive(&mut self) {
        self.armed = false;
    }

    /// Nothing happens; ready when that has been so for too long.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        let sleep = self.sleep.get_or_insert_with(|| {
            self.armed = true;
            Box::pin(sleep(limit))
        });
        if !self.armed {
            sleep.as_mut().reset(Instant::now() + limit);
            self.armed = true;
        }
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(())
    }
}
