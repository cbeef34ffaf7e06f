//! What a pager did for a machine, in numbers that only grow.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Buckets of the latency histogram: bucket n counts services that took less than 2^n µs, the last one all others.
pub const LATENCY_BUCKETS: usize = 24;

/// Counters of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VmStats {
    /// Messages about missing pages.
    pub faults: u64,
    /// Bytes copied for faults, those around them included.
    pub copied_bytes: u64,
    /// Bytes made zero for faults.
    pub zeroed_bytes: u64,
    /// Bytes filled ahead of faults: from hot pages, or to complete the machine.
    pub ahead_bytes: u64,
    /// Bytes the machine gave back.
    pub removed_bytes: u64,
    /// Pages that were there when they were to be filled.
    pub already_present: u64,
    /// Times that filling had to wait for a removal or for memory.
    pub retries: u64,
    /// Pagers that have served this machine before this one.
    pub takeovers: u64,
    /// Time from reading a message to waking the thread.
    pub latency: Histogram,
}

/// Durations in buckets of powers of two microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Histogram {
    /// Counts, see [`LATENCY_BUCKETS`].
    pub counts: [u64; LATENCY_BUCKETS],
    /// Sum of all durations in microseconds.
    pub sum_us: u64,
}

impl Histogram {
    /// Counts a duration.
    pub(crate) fn add(&mut self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - us.leading_zeros()) as usize;
        self.counts[bucket.min(LATENCY_BUCKETS - 1)] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// Number of durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Upper bound in microseconds below which the share `quantile` (0 to 1) of all durations lies; 0 if there are none.
    #[must_use]
    pub fn quantile_us(&self, quantile: f64) -> u64 {
        // Counts are far below 2^52, so the conversions are exact enough for a rank.
        let rank = (self.count() as f64 * quantile).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank && seen > 0 {
                return 1 << bucket;
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_their_buckets() {
        let mut histogram = Histogram::default();
        for us in [0, 1, 3, 100, 100, 100, u64::MAX] {
            histogram.add(Duration::from_micros(us));
        }
        assert_eq!(histogram.counts[0], 1);
        assert_eq!(histogram.counts[1], 1);
        assert_eq!(histogram.counts[2], 1);
        assert_eq!(histogram.counts[7], 3);
        assert_eq!(histogram.counts[LATENCY_BUCKETS - 1], 1);
        assert_eq!(histogram.quantile_us(0.5), 128);
        assert_eq!(histogram.quantile_us(0.01), 1);
        assert_eq!(Histogram::default().quantile_us(0.5), 0);
    }
}
