//! A machine that gets its memory from a pager, as its actor and its readers hold it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use model::InstanceId;
use pager::VmStats;
use tokio::time::timeout;
use tracing::debug;

use super::book::Standing;
use super::hot::HotSink;
use super::marks::{Coming, Marks, marks};
use super::site::{Site, run, stats_of};
use crate::instances::{OpError, chain};

/// How long a pager may take to say why a machine has ended, after its process has.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long a reader of figures waits for new ones.
const FIGURES: Duration = Duration::from_secs(3);

/// A machine on a pager.
pub struct Paged {
    pub(super) site: Arc<Site>,
    pub(super) vm: InstanceId,
    pub(super) hot_bytes: u64,
    recording: Arc<AtomicBool>,
    /// How far it is, for who records it.
    marks: Option<Marks>,
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
    /// One that is not recorded.
    pub(super) fn new(site: Arc<Site>, vm: InstanceId) -> Self {
        Self {
            site,
            vm,
            hot_bytes: 0,
            recording: Arc::default(),
            marks: None,
        }
    }

    /// Its pager records what it touches, which goes into `into`: up to its first command, or for `record_for` after
    /// it was ready.
    pub(super) fn record(&mut self, into: HotSink, record_for: Duration) {
        let (marks, coming) = marks(record_for);
        self.marks = Some(marks);
        self.recording.store(true, Ordering::Relaxed);
        let (site, vm) = (Arc::downgrade(&self.site), self.vm.clone());
        let recording = Arc::clone(&self.recording);
        tokio::spawn(async move {
            if let Err(error) = pass_on(coming, &site, &vm, into, &recording).await {
                // A recording is only a hint, and there will be others.
                debug!(instance = %vm, why = %chain(&error), "a recording is lost");
            }
            recording.store(false, Ordering::Relaxed);
        });
    }

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
    pub(in crate::instances) fn ready(&self) {
        if let Some(marks) = &self.marks {
            marks.ready();
        }
    }

    /// A command has given its result; the first one ends a recording.
    pub(in crate::instances) fn executed(&self) {
        if let Some(marks) = &self.marks {
            marks.executed();
        }
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

/// Tells the pager how far the guest is, one mark after the other, until it gives what it has recorded.
async fn pass_on(
    mut coming: Coming,
    site: &Weak<Site>,
    vm: &InstanceId,
    into: HotSink,
    recording: &AtomicBool,
) -> Result<(), OpError> {
    while let Some(mark) = coming.next().await {
        // The machine is gone, and so is what its pager knew.
        let Some(site) = site.upgrade() else { break };
        let name = vm.to_string();
        let recorded = site.ask(move |pager| pager.mark(&name, mark)).await?;
        if let Some(recorded) = recorded {
            recording.store(false, Ordering::Relaxed);
            return run(move || {
                into.put(&recorded);
                Ok(())
            })
            .await;
        }
    }
    Ok(())
}
