//! A machine that maps its template's memory: what it touches is recorded, or what others have touched is entered into
//! its page tables ahead.
//!
//! All of it happens in a task beside the machine, and none of it can fail the machine.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hypervisor::{MappedRam, Vm, VmmError};
use memory::{PAGE_BYTES, Run};
use model::maps_ahead;
use pager::{HotPages, Mark, PagerHost};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::hot::{HotOrder, HotWork};
use super::marks::{Coming, Marks, marks};
use super::site;
use crate::instances::{OpError, chain};

/// Machines that get hot pages at one time; each takes a thread for about a millisecond.
pub(super) const AT_ONCE: usize = 4;

/// From the start of a machine until its hot pages are there. Later than that it has touched them itself.
const LIMIT: Duration = Duration::from_secs(1);

/// Pages of 8 TiB: more than any machine has.
const ALL_PAGES: u64 = 1 << 31;

/// What machines that get hot pages share.
pub(super) struct Turns {
    pub(super) host: Arc<dyn PagerHost>,
    pub(super) entering: Arc<Semaphore>,
    pub(super) record_for: Duration,
}

/// A machine that maps its template's memory.
pub struct Mapped {
    marks: Marks,
    figures: Arc<Mutex<MappedFigures>>,
}

/// What was done about hot pages for a machine that maps its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MappedFigures {
    /// What it touches is being recorded.
    pub recording: bool,
    /// Bytes that were to be entered ahead.
    pub hot_bytes: u64,
    /// Bytes of these that were there before it touched them.
    pub ahead_bytes: u64,
    /// How long that took.
    pub took: Duration,
}

impl Mapped {
    /// Begins for a machine that has just been started.
    pub(super) fn begin(vm: Arc<dyn Vm>, order: HotOrder, turns: Turns) -> Arc<Self> {
        let (marks, coming) = marks(turns.record_for);
        let figures = Arc::default();
        let work = Work {
            vm,
            figures: Arc::clone(&figures),
        };
        tokio::spawn(async move {
            if let Err(error) = work.run(order, coming, turns).await {
                // Hot pages are only a hint, and there will be other recordings.
                debug!(pid = work.vm.process().pid, why = %chain(&error), "no hot pages");
            }
        });
        Arc::new(Self { marks, figures })
    }

    /// The guest's agent has answered.
    pub(in crate::instances) fn ready(&self) {
        self.marks.ready();
    }

    /// A command has given its result; the first one ends a recording.
    pub(in crate::instances) fn executed(&self) {
        self.marks.executed();
    }

    /// What was done until now.
    #[must_use]
    pub fn figures(&self) -> MappedFigures {
        *lock(&self.figures)
    }
}

/// What a task does for a machine.
struct Work {
    vm: Arc<dyn Vm>,
    figures: Arc<Mutex<MappedFigures>>,
}

impl Work {
    async fn run(
        &self,
        order: HotOrder,
        marks: Coming,
        Turns { host, entering, .. }: Turns,
    ) -> Result<(), OpError> {
        let until = Instant::now() + LIMIT;
        let prepared = order.prepared;
        let HotWork { record, replay } = site::run(move || {
            let mut work = order.plan();
            let swapped = || host.has_swapped().unwrap_or(false);
            if work.replay.is_some() && !maps_ahead(prepared, swapped()) {
                work.replay = None;
            }
            Ok(work)
        })
        .await?;
        if let Some(hot) = replay {
            self.enter(&hot, &entering, until).await?;
        } else if let Some(into) = record {
            lock(&self.figures).recording = true;
            let recorded = self.record(marks).await;
            lock(&self.figures).recording = false;
            if let Some(recorded) = recorded? {
                site::run(move || {
                    into.put(&recorded);
                    Ok(())
                })
                .await?;
            }
        }
        Ok(())
    }

    async fn enter(
        &self,
        hot: &HotPages,
        entering: &Semaphore,
        until: Instant,
    ) -> Result<(), OpError> {
        lock(&self.figures).hot_bytes = bytes(hot.page_count());
        // The semaphore is never closed.
        let Ok(Ok(_turn)) = timeout_at(until, entering.acquire()).await else {
            return Ok(());
        };
        let began = Instant::now();
        let runs = hot.runs(ALL_PAGES).collect();
        let entered = self.ram()?.enter(runs, until - began).await?;
        let mut figures = lock(&self.figures);
        figures.ahead_bytes = bytes(entered);
        figures.took = began.elapsed();
        Ok(())
    }

    /// Looks at the page tables at each mark. Nothing is recorded of a machine that ends before the last one.
    async fn record(&self, mut marks: Coming) -> Result<Option<HotPages>, OpError> {
        let mut by_ready: Vec<Run> = Vec::new();
        while let Some(mark) = marks.next().await {
            let touched = self.ram()?.touched().await?;
            match mark {
                Mark::Ready => by_ready = touched,
                Mark::FirstExec => return Ok(Some(HotPages::seen(&by_ready, &touched))),
            }
        }
        Ok(None)
    }

    fn ram(&self) -> Result<&dyn MappedRam, VmmError> {
        let none = || VmmError::Unusable {
            what: "the machine maps no image".to_owned(),
        };
        self.vm.mapped_ram().ok_or_else(none)
    }
}

fn lock(figures: &Mutex<MappedFigures>) -> MutexGuard<'_, MappedFigures> {
    // Whole between any two uses.
    figures.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bytes(pages: u64) -> u64 {
    pages.saturating_mul(PAGE_BYTES as u64)
}
