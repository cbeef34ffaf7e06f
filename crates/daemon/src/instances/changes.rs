//! Which instances have changed, for those who keep something in step with them.
//!
//! Only ids wait here, each once: however fast instances change, no more than all of them.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::InstanceId;
use tokio::sync::{Notify, watch};

/// Longest that an answer waits for its followers. They are only late then; the answer is right.
const SETTLE: Duration = Duration::from_millis(250);

/// The instances that have changed since the follower last looked.
#[derive(Debug)]
pub struct Changes {
    inner: Mutex<Inner>,
    wake: Notify,
    /// Rounds that the follower is through with; none while nobody follows.
    done: watch::Sender<Option<u64>>,
}

#[derive(Debug, Default)]
struct Inner {
    changed: BTreeSet<InstanceId>,
    /// Number of the round that collects now.
    round: u64,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            wake: Notify::new(),
            done: watch::Sender::new(None),
        }
    }
}

impl Changes {
    /// Notes that `id` is not what it was.
    pub(super) fn mark(&self, id: &InstanceId) {
        self.lock().changed.insert(id.clone());
        self.wake.notify_one();
    }

    /// Waits for changes; there is one follower. Everything until the next call counts as one
    /// round, which [`Changes::done`] ends.
    pub async fn next(&self) -> (u64, BTreeSet<InstanceId>) {
        loop {
            {
                let mut inner = self.lock();
                if !inner.changed.is_empty() {
                    let round = inner.round;
                    inner.round += 1;
                    return (round, std::mem::take(&mut inner.changed));
                }
            }
            self.wake.notified().await;
        }
    }

    /// Takes whatever has changed without waiting, as one round.
    pub fn take(&self) -> u64 {
        let mut inner = self.lock();
        inner.changed.clear();
        inner.round += 1;
        inner.round - 1
    }

    /// The follower is in step with all rounds up to this one.
    pub fn done(&self, round: u64) {
        self.done.send_replace(Some(round));
    }

    /// Waits until the follower, if there is one, knows everything that was marked so far.
    pub(super) async fn settled(&self) {
        let (round, waiting) = {
            let inner = self.lock();
            (inner.round, !inner.changed.is_empty())
        };
        // What waits belongs to the round that collects now; else the one before is enough.
        let Some(needed) = round.checked_sub(u64::from(!waiting)) else {
            return;
        };
        let mut done = self.done.subscribe();
        if done.borrow().is_none() {
            return;
        }
        let through = done.wait_for(|done| done.is_none_or(|done| done >= needed));
        // The follower is late, or has gone: neither is the answer's business.
        let _ = tokio::time::timeout(SETTLE, through).await;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whole between any two calls.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy;

    #[tokio::test]
    async fn an_instance_that_changes_often_waits_once() {
        let changes = Changes::default();
        let (one, other) = (entropy::instance_id(), entropy::instance_id());
        for id in [&one, &other, &one] {
            changes.mark(id);
        }
        let (round, changed) = changes.next().await;
        assert_eq!((round, changed), (0, BTreeSet::from([one.clone(), other])));
        changes.mark(&one);
        assert_eq!(changes.next().await, (1, BTreeSet::from([one])));
    }

    #[tokio::test]
    async fn settled_waits_for_what_was_marked_before() {
        let changes = Changes::default();
        // Nobody follows.
        changes.mark(&entropy::instance_id());
        changes.settled().await;
        let (round, _) = changes.next().await;
        changes.done(round);
        changes.settled().await;
        changes.mark(&entropy::instance_id());
        let settled = changes.settled();
        let follow = async {
            let (round, _) = changes.next().await;
            changes.done(round);
            assert_eq!(round, 1);
        };
        tokio::time::timeout(SETTLE, async { tokio::join!(settled, follow) })
            .await
            .unwrap();
    }
}
