//! One machine: its faults, removals and fills. Takes its memory and the image's bytes as arguments, so that the
//! tests can put a kernel of their own under it.
//!
//! Order: whatever removals were read are applied before any fault is answered. A fault and a removal that are
//! pending together are concurrent, so either order is right; but a fault that came after a removal was done must
//! find zeros, and that removal had been read, or it would not have been done.

mod failure;
mod fill;
mod guest_memory;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use memory::{PAGE_BYTES, Run};

use crate::ahead::{Due, Queue};
use crate::hot::{HotPages, Mark, Recorder};
use crate::layout::Layout;
use crate::plan::{self, Ahead, Batches};
use crate::regions::Regions;
use crate::source::Source;
use crate::state::State;
use crate::stats::VmStats;
use crate::sys::Message;
pub(crate) use failure::Failure;
pub(crate) use guest_memory::GuestMemory;

/// Faults waiting here; more stay in the kernel. A VMM has a few threads, a hostile one may have many.
const MAX_PENDING: usize = 256;
/// The same while nothing can be filled until a removal is read, which the kernel tells of after all faults. Each is of
/// a thread of its own, and no VMM has so many.
const MAX_PENDING_STALLED: usize = 64 << 10;
/// A machine whose memory cannot be filled for this long is given up. Waits of this kind take microseconds.
const STALL_LIMIT: Duration = Duration::from_secs(10);

/// How a piece of work went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    /// Done.
    Done,
    /// Not now: events must be read, or memory must come free.
    Busy,
    /// The process is ending, there is nothing to do any more.
    Gone,
}

#[derive(Debug)]
struct Pending {
    page: u64,
    since: Instant,
}

/// One machine.
#[derive(Debug)]
pub(crate) struct Vm {
    layout: Arc<Layout>,
    regions: Regions,
    state: State,
    batches: Batches,
    pending: VecDeque<Pending>,
    ahead: Queue,
    recorder: Option<Recorder>,
    recorded: Option<HotPages>,
    stalled_since: Option<Instant>,
    gone: bool,
    buffer: Vec<u8>,
    pub(crate) stats: VmStats,
}

impl Vm {
    pub(crate) fn new(
        layout: Arc<Layout>,
        regions: Regions,
        state: State,
        batches: Batches,
    ) -> Self {
        Self {
            layout,
            regions,
            state,
            batches,
            pending: VecDeque::new(),
            ahead: Queue::default(),
            recorder: None,
            recorded: None,
            stalled_since: None,
            gone: false,
            buffer: Vec::new(),
            stats: VmStats::default(),
        }
    }

    #[cfg(test)]
    fn regions(&self) -> &Regions {
        &self.regions
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Whether more messages may be read.
    pub(crate) fn has_room(&self) -> bool {
        let most = if self.is_stalled() {
            MAX_PENDING_STALLED
        } else {
            MAX_PENDING
        };
        self.pending.len() < most
    }

    pub(crate) fn has_faults(&self) -> bool {
        !self.pending.is_empty() && !self.gone
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled_since.is_some()
    }

    /// When there is something to fill ahead.
    pub(crate) fn ahead_due(&self) -> Option<Due> {
        if self.gone { None } else { self.ahead.due() }
    }

    /// Whether nothing is left to fill, and nobody waits for anything.
    pub(crate) fn has_graduated(&self) -> bool {
        self.ahead.has_graduated() && !self.has_faults()
    }

    /// Lets the kernel answer what is still missing in a machine that has graduated, which is zero.
    pub(crate) fn let_go(
        &mut self,
        memory: &impl GuestMemory,
        now: Instant,
    ) -> Result<Served, Failure> {
        let unregistered = self
            .regions
            .iter()
            .try_for_each(|region| memory.unregister(region.address, region.bytes));
        match unregistered {
            Ok(()) => Ok(Served::Done),
            // The kernel says so of a process that has ended, too, and that is heard of elsewhere.
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                self.put_off(Served::Busy, now)
            }
            Err(error) => Err(Failure::Memory(error)),
        }
    }

    pub(crate) fn record(&mut self) {
        self.recorder = Some(Recorder::default());
    }

    /// Notes how far the guest is.
    pub(crate) fn mark(&mut self, mark: Mark) {
        match mark {
            Mark::Ready => {
                if let Some(recorder) = &mut self.recorder {
                    recorder.ready();
                }
            }
            Mark::FirstExec => {
                if let Some(recorder) = self.recorder.take() {
                    self.recorded = Some(recorder.finish());
                }
            }
        }
    }

    /// What was recorded, once [`Mark::FirstExec`] was reached.
    pub(crate) fn take_recorded(&mut self) -> Option<HotPages> {
        self.recorded.take()
    }

    pub(crate) fn prefetch(&mut self, hot: &HotPages) {
        self.ahead.prefetch(hot.runs(self.layout.pages()));
    }

    pub(crate) fn graduate(&mut self, bytes_per_second: u64, now: Instant) {
        let runs = self.regions.iter().map(|region| region.run()).collect();
        self.ahead.graduate(runs, bytes_per_second, now);
    }

    /// Acts on messages that were read into the state, then forgets them there. `count` is how many were read.
    pub(crate) fn take_messages(&mut self, count: usize, now: Instant) -> Result<(), Failure> {
        let messages = self.state.messages();
        for message in &messages {
            if let Message::Removed { start, end } = message {
                for run in self.regions.runs_in(*start, *end) {
                    self.state.remove(run);
                    self.stats.removed_bytes += run.count * PAGE_BYTES as u64;
                }
            }
        }
        for message in messages {
            match message {
                Message::Missing(address) => {
                    let Some((page, _)) = self.regions.page_at(address) else {
                        return Err(Failure::Outside(address));
                    };
                    self.stats.faults += 1;
                    self.pending.push_back(Pending { page, since: now });
                }
                Message::Removed { .. } => {}
                Message::Unexpected(what) => return Err(Failure::Unexpected(what)),
            }
        }
        self.state.clear_messages(count);
        Ok(())
    }

    /// Forgets what another pager had read of faults, applies its removals, and wakes every waiting thread, which
    /// makes it report its fault again.
    pub(crate) fn take_over(
        &mut self,
        memory: &impl GuestMemory,
        now: Instant,
    ) -> Result<(), Failure> {
        self.take_messages(crate::state::SLOTS, now)?;
        self.pending.clear();
        for region in self.regions.iter() {
            memory
                .wake(region.address, region.bytes)
                .map_err(Failure::Memory)?;
        }
        Ok(())
    }

    /// Answers the oldest fault and all others that this answers too.
    pub(crate) fn serve_fault(
        &mut self,
        memory: &impl GuestMemory,
        source: &mut impl Source,
        now: Instant,
    ) -> Result<Served, Failure> {
        let Some(page) = self.pending.front().map(|pending| pending.page) else {
            return Ok(Served::Done);
        };
        // Pages in the queue were found by their region.
        let region = self.regions.region_of(page).ok_or(Failure::Outside(page))?;
        let fills = plan::fault(&self.layout, &self.state, self.batches, region, page);
        for (nth, fill) in fills.iter().enumerate() {
            let served = self.fill(*fill, memory, source)?;
            if served != Served::Done {
                // The first holds the page that is waited for; the others can come with a fault of their own.
                if nth > 0 && served == Served::Busy {
                    break;
                }
                return self.put_off(served, now);
            }
            self.answered(fill.run());
            if let Some(recorder) = &mut self.recorder {
                recorder.note(fill.run());
            }
        }
        self.stalled_since = None;
        Ok(Served::Done)
    }

    /// Fills up to `pages` pages ahead of faults.
    pub(crate) fn serve_ahead(
        &mut self,
        memory: &impl GuestMemory,
        source: &mut impl Source,
        pages: u64,
        now: Instant,
    ) -> Result<Served, Failure> {
        let Some((ahead, run)) = self.ahead.next(pages, now) else {
            return Ok(Served::Done);
        };
        let before = (self.stats.copied_bytes, self.stats.zeroed_bytes);
        let served = self.fill_ahead(ahead, run, memory, source);
        // Counted apart: what `fill` counted was not for faults.
        let filled = self.stats.copied_bytes - before.0 + self.stats.zeroed_bytes - before.1;
        (self.stats.copied_bytes, self.stats.zeroed_bytes) = before;
        self.stats.ahead_bytes += filled;
        if ahead == Ahead::Graduate {
            self.ahead.spent(filled, now);
        }
        let served = match served {
            // Nobody waits for it. A VMM that ends may have given its memory back already; one that goes on will
            // fault where it is needed.
            Err(Failure::Memory(error)) => {
                if self.ahead.give_up(ahead, run, now) {
                    tracing::warn!(%error, "memory cannot be filled ahead now");
                }
                self.stalled_since = None;
                return Ok(Served::Done);
            }
            served => served?,
        };
        if served == Served::Done {
            self.stalled_since = None;
        } else {
            self.ahead.put_back(ahead, run);
        }
        self.put_off(served, now)
    }

    fn fill_ahead(
        &mut self,
        ahead: Ahead,
        run: Run,
        memory: &impl GuestMemory,
        source: &mut impl Source,
    ) -> Result<Served, Failure> {
        let regions: Vec<_> = self.regions.iter().collect();
        for region in regions {
            let first = run.first.max(region.run().first);
            let end = run.end().min(region.run().end());
            if first >= end {
                continue;
            }
            let part = Run {
                first,
                count: end - first,
            };
            for fill in plan::ahead(&self.layout, &self.state, ahead, region, part) {
                let served = self.fill(fill, memory, source)?;
                if served != Served::Done {
                    return Ok(served);
                }
                self.answered(fill.run());
            }
        }
        Ok(Served::Done)
    }

    /// Takes the addresses of all waiting faults, with the size of their pages; they are not answered.
    pub(crate) fn give_up_faults(&mut self) -> Vec<(u64, u64)> {
        let pending = std::mem::take(&mut self.pending);
        let address = |pending: Pending| {
            let region = self.regions.region_of(pending.page)?;
            let inside = (pending.page - region.run().first) * PAGE_BYTES as u64;
            let inside = inside - inside % region.page_bytes;
            Some((region.address + inside, region.page_bytes))
        };
        pending.into_iter().filter_map(address).collect()
    }

    fn put_off(&mut self, served: Served, now: Instant) -> Result<Served, Failure> {
        match served {
            Served::Gone => self.gone = true,
            Served::Busy => {
                self.stats.retries += 1;
                let since = *self.stalled_since.get_or_insert(now);
                if now.duration_since(since) > STALL_LIMIT {
                    return Err(Failure::Stalled);
                }
            }
            Served::Done => {}
        }
        Ok(served)
    }

    /// Drops faults in `run`: their threads were on the queue of the kernel before it was filled, so they are awake.
    fn answered(&mut self, run: Run) {
        let stats = &mut self.stats;
        self.pending.retain(|pending| {
            let answered = (run.first..run.end()).contains(&pending.page);
            if answered {
                stats.latency.add(pending.since.elapsed());
            }
            !answered
        });
    }
}

#[cfg(test)]
mod tests;
