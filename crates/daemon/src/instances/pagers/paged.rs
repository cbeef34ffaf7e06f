//! A machine that gets its memory from a pager, as its actor and its readers hold it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::InstanceId;
use pager::{Mark, VmStats};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::book::Standing;
use super::hot::HotStore;
use super::site::{Site, stats_of};
use crate::instances::chain;

/// How long a pager may take to say why a machine has ended, after its process has.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long a reader of figures waits for new ones.
const FIGURES: Duration = Duration::from_secs(3);

/// A machine on a pager.
pub struct Paged {
    pub(super) site: Arc<Site>,
    pub(super) vm: InstanceId,
    /// Where a recording goes, while there is one.
    pub(super) hot: Option<HotStore>,
    pub(super) recording: AtomicBool,
    /// How long that goes on after it was ready.
    pub(super) record_for: Duration,
    pub(super) hot_bytes: u64,
}

/// What a pager did for a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figures {
    /// All memory is there, and nobody serves it.
    pub complete: bool,
    /// What it touches is being recorded.
    pub recording: bool,
    /// Bytes that it was given to fill ahead.
    pub hot_bytes: u64,
    /// Its counters.
    pub stats: VmStats,
}

impl Paged {
    /// Why the pager has had the machine killed, if it has; asked when its process has ended.
    pub(in crate::instances) async fn last_words(&self) -> Option<String> {
        let mut changed = self.site.changed.subscribe();
        let over = changed.wait_for(|_| {
            let book = self.site.book();
            let seat = book.seat(&self.vm);
            seat.is_none_or(|seat| seat.failure.is_some() || seat.standing != Standing::Served)
        });
        // Without an answer there is none to tell.
        let _ = timeout(LAST_WORDS, over).await;
        self.failure()
    }

    /// Why the machine was killed, as far as is known now.
    pub(in crate::instances) fn failure(&self) -> Option<String> {
        self.site.book().seat(&self.vm)?.failure.clone()
    }

    /// The guest's agent has answered.
    pub(in crate::instances) fn ready(self: &Arc<Self>) {
        if !self.recording.load(Ordering::Relaxed) {
            return;
        }
        self.mark(Mark::Ready);
        // A guest that serves and is given no command would be recorded for ever.
        let (paged, record_for) = (Arc::downgrade(self), self.record_for);
        tokio::spawn(async move {
            sleep(record_for).await;
            if let Some(paged) = paged.upgrade() {
                paged.executed();
            }
        });
    }

    /// A command has given its result; the first one ends a recording.
    pub(in crate::instances) fn executed(self: &Arc<Self>) {
        if self.recording.swap(false, Ordering::Relaxed) {
            self.mark(Mark::FirstExec);
        }
    }

    /// Beside whoever waits for the guest.
    fn mark(self: &Arc<Self>, mark: Mark) {
        let paged = Arc::clone(self);
        tokio::spawn(async move {
            let vm = paged.vm.to_string();
            let store = paged.hot.clone();
            let marked = paged.site.ask(move |pager| {
                if let (Some(recorded), Some(store)) = (pager.mark(&vm, mark)?, store) {
                    store.add(&recorded);
                }
                Ok(())
            });
            if let Err(error) = marked.await {
                // A recording is only a hint, and there will be others.
                debug!(instance = %paged.vm, why = %chain(&error), "a recording is lost");
            }
        });
    }

    /// What the pager did for it until now; as it was last known where the pager does not answer.
    pub async fn figures(&self) -> Option<Figures> {
        let served = || {
            let book = self.site.book();
            let seat = book.seat(&self.vm);
            seat.is_some_and(|seat| seat.standing == Standing::Served)
        };
        if served()
            && let Err(error) = timeout(FIGURES, self.site.refresh())
                .await
                .unwrap_or(Ok(()))
        {
            debug!(instance = %self.vm, why = %chain(&error), "no new figures");
        }
        let (standing, stats) = stats_of(&self.site, &self.vm)?;
        Some(Figures {
            complete: standing == Standing::Complete,
            recording: self.recording.load(Ordering::Relaxed),
            hot_bytes: self.hot_bytes,
            stats,
        })
    }
}

impl Drop for Paged {
    fn drop(&mut self) {
        self.site.book().release(&self.vm);
        self.site.touch();
    }
}
