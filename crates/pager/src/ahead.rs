//! Filling ahead of faults: what is left to do, and when. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use memory::Run;

use crate::plan::Ahead;

/// From a failure of completing a machine to the next try; twice as long after each that follows.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// No longer than some minutes: 2^8 times that.
const MAX_DOUBLINGS: u32 = 8;

/// Work that waits while any fault does.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    prefetch: VecDeque<Run>,
    graduation: Option<Graduation>,
}

/// A machine being completed.
#[derive(Debug)]
struct Graduation {
    left: VecDeque<Run>,
    bytes_per_second: u64,
    /// Nothing is filled before this.
    not_before: Instant,
    /// In a row.
    failures: u32,
}

impl Queue {
    /// Adds pages to prefetch, in this order.
    pub(crate) fn prefetch(&mut self, runs: impl Iterator<Item = Run>) {
        self.prefetch.extend(runs);
    }

    /// Starts completing the machine, whose RAM is in `runs`.
    pub(crate) fn graduate(&mut self, runs: Vec<Run>, bytes_per_second: u64, now: Instant) {
        self.graduation = Some(Graduation {
            left: runs.into(),
            bytes_per_second: bytes_per_second.max(1),
            not_before: now,
            failures: 0,
        });
    }

    /// Takes up to `pages` pages of the next work that is due.
    pub(crate) fn next(&mut self, pages: u64, now: Instant) -> Option<(Ahead, Run)> {
        if let Some(run) = take(&mut self.prefetch, pages) {
            return Some((Ahead::Prefetch, run));
        }
        let graduation = self.graduation.as_mut()?;
        if now < graduation.not_before {
            return None;
        }
        take(&mut graduation.left, pages).map(|run| (Ahead::Graduate, run))
    }

    /// Gives back work that could not be done now.
    pub(crate) fn put_back(&mut self, ahead: Ahead, run: Run) {
        match (ahead, &mut self.graduation) {
            (Ahead::Graduate, Some(graduation)) => graduation.left.push_front(run),
            _ => self.prefetch.push_front(run),
        }
    }

    /// Gives back work that failed, which is a hint as far as it was prefetch. Completing the machine is tried again
    /// after a while, with what is left first: nobody else would. Whether that is news.
    pub(crate) fn give_up(&mut self, ahead: Ahead, run: Run, now: Instant) -> bool {
        self.prefetch.clear();
        let (Ahead::Graduate, Some(graduation)) = (ahead, &mut self.graduation) else {
            return true;
        };
        graduation.left.push_back(run);
        graduation.not_before = now + TRY_AGAIN_AFTER * (1 << graduation.failures);
        let is_first = graduation.failures == 0;
        graduation.failures = (graduation.failures + 1).min(MAX_DOUBLINGS);
        is_first
    }

    /// Notes that completing the machine took `bytes` bytes, so that it keeps to its rate.
    pub(crate) fn spent(&mut self, bytes: u64, now: Instant) {
        if let Some(graduation) = &mut self.graduation {
            if bytes > 0 {
                graduation.failures = 0;
            }
            let us = bytes.saturating_mul(1_000_000) / graduation.bytes_per_second;
            let from = graduation.not_before.max(now);
            graduation.not_before = from + Duration::from_micros(us);
        }
    }

    /// When there is work next; `None` if there is none.
    pub(crate) fn due(&self) -> Option<Due> {
        if !self.prefetch.is_empty() {
            return Some(Due::Now);
        }
        let graduation = self.graduation.as_ref()?;
        Some(Due::At(graduation.not_before))
    }

    /// Whether the machine was to be completed and nothing is left of that.
    pub(crate) fn has_graduated(&self) -> bool {
        let done = |graduation: &Graduation| graduation.left.is_empty();
        self.prefetch.is_empty() && self.graduation.as_ref().is_some_and(done)
    }
}

/// When there is work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Now,
    At(Instant),
}

fn take(runs: &mut VecDeque<Run>, pages: u64) -> Option<Run> {
    let front = runs.front_mut()?;
    let taken = Run {
        first: front.first,
        count: front.count.min(pages),
    };
    front.first += taken.count;
    front.count -= taken.count;
    if front.count == 0 {
        runs.pop_front();
    }
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefetch_comes_first_and_completing_keeps_to_its_rate() {
        let start = Instant::now();
        let mut queue = Queue::default();
        assert_eq!(queue.due(), None);
        queue.graduate(vec![Run { first: 0, count: 3 }], 4096, start);
        queue.prefetch([Run { first: 7, count: 5 }].into_iter());
        let next =
            |queue: &mut Queue, now| queue.next(4, now).map(|(_, run)| (run.first, run.count));
        assert_eq!(queue.due(), Some(Due::Now));
        assert_eq!(next(&mut queue, start), Some((7, 4)));
        queue.put_back(Ahead::Prefetch, Run { first: 7, count: 4 });
        assert_eq!(next(&mut queue, start), Some((7, 4)));
        assert_eq!(next(&mut queue, start), Some((11, 1)));
        assert_eq!(
            queue.next(2, start),
            Some((Ahead::Graduate, Run { first: 0, count: 2 }))
        );
        queue.spent(8192, start);
        let later = start + Duration::from_secs(2);
        assert_eq!(queue.due(), Some(Due::At(later)));
        assert_eq!(queue.next(2, start), None);
        assert!(!queue.has_graduated());
        assert_eq!(next(&mut queue, later), Some((2, 1)));
        assert!(queue.has_graduated());
    }

    #[test]
    fn what_fails_is_tried_again_later_where_somebody_counts_on_it() {
        let start = Instant::now();
        let mut queue = Queue::default();
        queue.prefetch([Run { first: 7, count: 5 }].into_iter());
        queue.graduate(vec![Run { first: 0, count: 9 }], 4096, start);
        let (ahead, run) = queue.next(2, start).unwrap();
        assert!(queue.give_up(ahead, run, start));
        let (ahead, run) = queue.next(2, start).unwrap();
        assert_eq!(ahead, Ahead::Graduate, "hot pages are given up");
        assert!(queue.give_up(ahead, run, start));
        assert_eq!(queue.next(2, start), None);
        let later = start + TRY_AGAIN_AFTER;
        assert_eq!(queue.due(), Some(Due::At(later)));
        let (_, rest) = queue.next(9, later).unwrap();
        assert_eq!((rest.first, rest.count), (2, 7), "the rest comes first");
        assert_eq!(queue.next(9, later), Some((ahead, run)));
        assert!(!queue.give_up(ahead, run, later), "it was told");
        assert_eq!(queue.due(), Some(Due::At(later + 2 * TRY_AGAIN_AFTER)));
    }
}
