//! What is known of the machines of one image: who is served, and what became of those that are not.

use std::collections::HashMap;

use model::InstanceId;
use pager::{Event, VmStats};
use tokio::time::Instant;

/// How a machine stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is being handed over.
    Coming,
    /// A pager answers its faults.
    Served,
    /// All its memory is there; nobody serves it any more.
    Complete,
    /// Its process has ended, or is ending.
    Gone,
}

/// What is known of a machine.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    pub(super) standing: Standing,
    /// Why it was killed.
    pub(super) failure: Option<String>,
    /// Since when it is served.
    pub(super) since: Instant,
    /// It is being completed.
    pub(super) graduating: bool,
    /// Somebody wants to know what becomes of it.
    pub(super) held: bool,
    /// As they were last seen, of all its pagers.
    pub(super) stats: VmStats,
    /// Of that, what earlier pagers have counted.
    before: VmStats,
}

impl Seat {
    /// Takes what the machine's pager has counted. One that took over has begun at nothing, but for takeovers.
    pub(super) fn learn(&mut self, counted: &VmStats) {
        let took_over = counted.takeovers > self.stats.takeovers;
        let before = if took_over { &self.stats } else { &self.before };
        let mut all = Totals(before.clone());
        all.add(counted);
        all.0.takeovers = counted.takeovers;
        // A pager that gave the machine up when it was lost has counted nothing.
        if all.0.faults < self.stats.faults || all.0.takeovers < self.stats.takeovers {
            return;
        }
        if took_over {
            self.before = std::mem::take(&mut self.stats);
        }
        self.stats = all.0;
    }
}

/// The machines of one image.
#[derive(Debug, Default)]
pub(super) struct Book {
    seats: HashMap<InstanceId, Seat>,
    /// Pagers that were replaced.
    pub(super) takeovers: u64,
    /// Counters of machines that are forgotten.
    pub(super) past: Totals,
}

impl Book {
    pub(super) fn open(&mut self, vm: InstanceId, standing: Standing, held: bool) {
        let seat = Seat {
            standing,
            failure: None,
            since: Instant::now(),
            graduating: false,
            held,
            stats: VmStats::default(),
            before: VmStats::default(),
        };
        self.seats.insert(vm, seat);
    }

    /// Notes the machines that earlier daemons have left.
    pub(super) fn take_stock(&mut self, served: &[String]) {
        for vm in served.iter().filter_map(|vm| vm.parse::<InstanceId>().ok()) {
            if self.seat(&vm).is_none() {
                self.open(vm, Standing::Served, false);
            }
        }
    }

    /// Forgets those of the stock that are not among `served` any more: they may have ended before they were noted,
    /// when nobody here knew of them.
    pub(super) fn check_stock(&mut self, served: &[String]) {
        let over: Vec<InstanceId> = self
            .seats
            .iter()
            .filter(|(vm, seat)| {
                seat.standing == Standing::Served && !seat.held && !served.contains(&vm.to_string())
            })
            .map(|(vm, _)| vm.clone())
            .collect();
        for vm in over {
            self.end(&vm, Standing::Gone, None);
        }
    }

    pub(super) fn seat(&self, vm: &InstanceId) -> Option<&Seat> {
        self.seats.get(vm)
    }

    pub(super) fn seat_mut(&mut self, vm: &InstanceId) -> Option<&mut Seat> {
        self.seats.get_mut(vm)
    }

    /// Machines that need a pager.
    pub(super) fn users(&self) -> impl Iterator<Item = (&InstanceId, &Seat)> {
        self.seats
            .iter()
            .filter(|(_, seat)| matches!(seat.standing, Standing::Coming | Standing::Served))
    }

    /// Notes what a pager says. Gives the machines that it is about, and what their owners should read.
    pub(super) fn note(&mut self, event: Event) -> Vec<(InstanceId, String)> {
        match event {
            Event::Failed { vm, reason } => {
                let Ok(vm) = vm.parse::<InstanceId>() else {
                    return Vec::new();
                };
                let words = format!("its memory cannot be served: {reason}");
                // Of one that failed while no daemon was there it is the first that is heard.
                if !self.seats.contains_key(&vm) {
                    self.open(vm.clone(), Standing::Served, false);
                }
                if let Some(seat) = self.seats.get_mut(&vm) {
                    seat.failure.get_or_insert(reason);
                }
                vec![(vm, words)]
            }
            Event::Gone(named) => {
                if let Some(vm) = self.known(&named.vm) {
                    self.end(&vm, Standing::Gone, Some(named.stats));
                }
                Vec::new()
            }
            Event::Graduated(named) => {
                let Some(vm) = self.known(&named.vm) else {
                    return Vec::new();
                };
                self.end(&vm, Standing::Complete, Some(named.stats));
                vec![(vm, "its memory is complete; no pager serves it".to_owned())]
            }
            Event::TookOver { vms, took } => {
                self.takeovers += 1;
                let words = format!(
                    "the pager of its memory was lost; another one took over within {} ms",
                    took.as_millis()
                );
                let taken = vms.iter().filter_map(|vm| self.known(vm));
                taken.map(|vm| (vm, words.clone())).collect()
            }
        }
    }

    /// Why machines have failed whom nobody here holds yet: they may have ended before this daemon began.
    pub(super) fn unheard(&self) -> Vec<(InstanceId, String)> {
        let unheld = self.seats.iter().filter(|(_, seat)| !seat.held);
        unheld
            .filter_map(|(vm, seat)| Some((vm.clone(), seat.failure.clone()?)))
            .collect()
    }

    /// The machine needs no pager any more. What nobody holds is forgotten, but not why it failed: somebody may come
    /// to hold it.
    pub(super) fn end(&mut self, vm: &InstanceId, standing: Standing, stats: Option<VmStats>) {
        let Some(seat) = self.seats.get_mut(vm) else {
            return;
        };
        seat.standing = standing;
        if let Some(stats) = stats {
            seat.learn(&stats);
        }
        if !seat.held && seat.failure.is_none() {
            self.forget(vm);
        }
    }

    /// Nobody wants to know of it any more; one that is served is remembered all the same.
    pub(super) fn release(&mut self, vm: &InstanceId) {
        let Some(seat) = self.seats.get_mut(vm) else {
            return;
        };
        seat.held = false;
        if matches!(seat.standing, Standing::Complete | Standing::Gone) {
            self.forget(vm);
        }
    }

    fn forget(&mut self, vm: &InstanceId) {
        if let Some(seat) = self.seats.remove(vm) {
            self.past.add(&seat.stats);
        }
    }

    /// Counters of all machines there ever were.
    pub(super) fn totals(&self) -> Totals {
        let mut totals = self.past.clone();
        self.seats.values().for_each(|seat| totals.add(&seat.stats));
        totals
    }

    fn known(&self, vm: &str) -> Option<InstanceId> {
        let vm: InstanceId = vm.parse().ok()?;
        self.seats.contains_key(&vm).then_some(vm)
    }
}

/// Sums of counters. Times from a fault to its answer are kept as the pager counts them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals(pub VmStats);

impl Totals {
    /// Adds the counters of a machine.
    pub fn add(&mut self, more: &VmStats) {
        let sum = &mut self.0;
        sum.faults += more.faults;
        sum.copied_bytes += more.copied_bytes;
        sum.zeroed_bytes += more.zeroed_bytes;
        sum.ahead_bytes += more.ahead_bytes;
        sum.removed_bytes += more.removed_bytes;
        sum.already_present += more.already_present;
        sum.retries += more.retries;
        sum.takeovers += more.takeovers;
        for (sum, more) in sum.latency.counts.iter_mut().zip(more.latency.counts) {
            *sum += more;
        }
        sum.latency.sum_us += more.latency.sum_us;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pager::NamedStats;

    use super::*;
    use crate::entropy;

    fn stats(vm: &InstanceId, faults: u64) -> NamedStats {
        NamedStats {
            vm: vm.to_string(),
            stats: VmStats {
                faults,
                ..VmStats::default()
            },
        }
    }

    #[test]
    fn what_became_of_a_machine_is_kept_while_somebody_wants_to_know() {
        let mut book = Book::default();
        let (one, other) = (entropy::instance_id(), entropy::instance_id());
        book.open(one.clone(), Standing::Served, true);
        book.open(other.clone(), Standing::Served, false);
        let told = book.note(Event::Failed {
            vm: one.to_string(),
            reason: "chunk 3".to_owned(),
        });
        assert_eq!(told[0].0, one);
        book.note(Event::Gone(stats(&one, 5)));
        book.note(Event::Gone(stats(&other, 7)));
        assert_eq!(book.users().count(), 0);
        assert!(book.seat(&other).is_none());
        assert_eq!(book.seat(&one).unwrap().failure.as_deref(), Some("chunk 3"));
        book.release(&one);
        assert!(book.seat(&one).is_none());
        assert_eq!(book.totals().0.faults, 12, "counters only grow");
    }

    #[test]
    fn why_a_machine_failed_before_this_daemon_began_is_kept() {
        let mut book = Book::default();
        let vm = entropy::instance_id();
        book.note(Event::Failed {
            vm: vm.to_string(),
            reason: "chunk 3".to_owned(),
        });
        book.check_stock(&[]);
        assert_eq!(book.unheard(), [(vm, "chunk 3".to_owned())]);
        assert_eq!(book.users().count(), 0, "nobody is served for it");
    }

    #[test]
    fn counters_go_on_when_another_pager_takes_over() {
        let counted = |faults, takeovers| VmStats {
            faults,
            takeovers,
            ..VmStats::default()
        };
        let mut book = Book::default();
        let vm = entropy::instance_id();
        book.open(vm.clone(), Standing::Served, true);
        let seat = book.seat_mut(&vm).unwrap();
        for (counts, faults) in [
            (counted(10, 0), 10),
            (counted(3, 1), 13),
            (counted(5, 1), 15),
            (counted(1, 2), 16),
            // Of a pager that was lost before it could say more.
            (counted(0, 0), 16),
        ] {
            seat.learn(&counts);
            assert_eq!(seat.stats.faults, faults, "{counts:?}");
        }
        assert_eq!(seat.stats.takeovers, 2);
    }

    /// Else its image would be in use for ever.
    #[test]
    fn a_machine_that_ends_while_stock_is_taken_is_not_waited_for() {
        let mut book = Book::default();
        let (one, other) = (entropy::instance_id(), entropy::instance_id());
        let found = [one.to_string(), other.to_string()];
        book.note(Event::Gone(stats(&one, 5)));
        book.take_stock(&found);
        book.check_stock(&found[1..]);
        let users: Vec<_> = book.users().map(|(vm, _)| vm.clone()).collect();
        assert_eq!(users, [other]);
    }

    #[test]
    fn a_machine_that_is_served_counts_whoever_holds_it() {
        let mut book = Book::default();
        let vm = entropy::instance_id();
        book.open(vm.clone(), Standing::Served, true);
        book.release(&vm);
        assert_eq!(book.users().count(), 1);
        // It has a pager of its own, which was not lost.
        let other = entropy::instance_id();
        book.open(other.clone(), Standing::Served, true);
        let told = book.note(Event::TookOver {
            vms: vec![vm.to_string()],
            took: Duration::from_millis(20),
        });
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].0, vm);
        assert!(told[0].1.contains("20 ms"));
        book.note(Event::Graduated(stats(&vm, 1)));
        assert!(book.seat(&vm).is_none());
    }
}
