//! Numbers that many tasks change.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets of durations, in milliseconds.
pub(super) const BOUNDS_MS: [u32; 10] = [1, 2, 5, 10, 25, 50, 100, 500, 2_000, 10_000];

/// A number that only rises.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn one(&self) {
        self.add(1);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many there are now.
#[derive(Debug, Default)]
pub(crate) struct Gauge(Arc<AtomicI64>);

/// Counts as one as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted(Arc<AtomicI64>);

impl Gauge {
    /// One more until the returned value is dropped.
    pub(crate) fn hold(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(&self.0))
    }

    pub(crate) fn count(&self) -> usize {
        usize::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(0)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long something took.
#[derive(Debug, Default)]
pub(crate) struct Durations {
    /// One for each bound and one for what is above all of them.
    buckets: [AtomicU64; BOUNDS_MS.len() + 1],
    sum_us: AtomicU64,
}

impl Durations {
    pub(crate) fn observe(&self, took: Duration) {
        let fits = |bound: &u32| took <= Duration::from_millis(u64::from(*bound));
        let bucket = BOUNDS_MS.iter().position(fits).unwrap_or(BOUNDS_MS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Counts of the single buckets.
    pub(super) fn counts(&self) -> [u64; BOUNDS_MS.len() + 1] {
        std::array::from_fn(|at| self.buckets[at].load(Ordering::Relaxed))
    }

    pub(super) fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us.load(Ordering::Relaxed))
    }
}
