//! How many questions are under way, in all and of one client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// One client may have this part of all.
const SHARE: usize = 8;

/// Questions under way.
#[derive(Debug, Clone, Default)]
pub(super) struct InFlight(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    of: HashMap<IpAddr, usize>,
}

/// Counts as one question as long as it lives.
#[derive(Debug)]
pub(super) struct Permit {
    counts: Arc<Mutex<Counts>>,
    client: IpAddr,
}

impl InFlight {
    /// One more, unless there are too many.
    pub(super) fn enter(&self, client: IpAddr, most: usize) -> Option<Permit> {
        // Whole updates only: good whatever panicked.
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = counts.of.get(&client).copied().unwrap_or(0);
        if counts.all >= most || of >= (most / SHARE).max(1) {
            return None;
        }
        counts.all += 1;
        counts.of.insert(client, of + 1);
        Some(Permit {
            counts: Arc::clone(&self.0),
            client,
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        let left = counts.of.get(&self.client).map_or(0, |of| of - 1);
        match left {
            0 => counts.of.remove(&self.client),
            left => counts.of.insert(self.client, left),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_cannot_take_every_place() {
        let in_flight = InFlight::default();
        let (greedy, other) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let held: Vec<_> = (0..2)
            .map(|_| in_flight.enter(greedy, 16).unwrap())
            .collect();
        assert!(in_flight.enter(greedy, 16).is_none());
        assert!(in_flight.enter(other, 16).is_some());
        drop(held);
        assert!(in_flight.enter(greedy, 16).is_some());
        assert!(in_flight.0.lock().unwrap().of.is_empty());
    }
}
