//! The steps of a network, as calls that block.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::kernel::Kernel;
use super::slot::SlotPlan;
use super::{conntrack, leftovers, ports};
use crate::plan::{Book, Change, Element, Names, Taken, elements};
use crate::{
    Bandwidth, Egress, Lease, Leftover, LeftoverKind, NetworkError, Policy, Pool, Slot, guest,
};

/// State of a network. Who needs both locks takes `kernel` first.
pub(super) struct Inner {
    pub(super) names: Names,
    pub(super) pool: Pool,
    pub(super) mtu: u16,
    /// How many slots are kept prepared.
    pub(super) ready: usize,
    pub(super) book: Mutex<Book>,
    pub(super) kernel: Mutex<Kernel>,
    /// Slots to be cleaned; no longer than the pool.
    pub(super) dirty: Mutex<VecDeque<Slot>>,
    /// There is something to prepare or to clean.
    pub(super) work: Notify,
    /// A slot became free.
    pub(super) freed: Notify,
    /// Held while the network is open.
    pub(super) _lock: File,
}

/// Nothing that holds one of the locks panics; and what it guards is right after each step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    /// Takes a slot; `None` if one has to be waited for.
    pub(super) fn take(&self, owner: &str, policy: &Policy) -> Result<Option<Lease>, NetworkError> {
        // First, because it knows who has a port: the edge listens on those of others too.
        lock(&self.book).check(policy, None)?;
        ports::refuse_busy(policy, None)?;
        let taken = lock(&self.book).take(owner, policy)?;
        self.work.notify_one();
        let slot = match taken {
            Taken::Ready(slot) => slot,
            Taken::Make(slot) => {
                self.plan(slot)?
                    .make()
                    .inspect_err(|_| self.abandon(slot))?;
                slot
            }
            Taken::Wait => return Ok(None),
        };
        self.furnish(slot, policy).inspect_err(|_| {
            if let Err(error) = self.give_back(slot) {
                tracing::warn!(%error, %slot, "a slot that could not be set up was not given back well");
            }
        })?;
        self.lease(slot).map(Some)
    }

    fn furnish(&self, slot: Slot, policy: &Policy) -> Result<(), NetworkError> {
        // First, so that it never runs without its limit.
        if policy.bandwidth != Bandwidth::default() {
            self.plan(slot)?.shape(&policy.bandwidth)?;
        }
        self.apply(&mut lock(&self.kernel), slot).map(|_| ())
    }

    /// A slot in use could not be made: nobody has it.
    fn abandon(&self, slot: Slot) {
        let mut book = lock(&self.book);
        if book.give_back(slot).is_ok() {
            book.removed(slot);
        }
    }

    pub(super) fn give_back(&self, slot: Slot) -> Result<(), NetworkError> {
        let mut kernel = lock(&self.kernel);
        lock(&self.book).give_back(slot)?;
        let closed = kernel.apply(slot, BTreeSet::new()).map(|_| ());
        drop(kernel);
        lock(&self.dirty).push_back(slot);
        self.work.notify_one();
        closed
    }

    pub(super) fn set_policy(&self, slot: Slot, policy: Policy) -> Result<(), NetworkError> {
        let mut kernel = lock(&self.kernel);
        let old = lock(&self.book).get(slot).map(|(_, old)| old.clone());
        let old = old.ok_or(NetworkError::UnknownSlot(slot))?;
        lock(&self.book).check(&policy, Some(slot))?;
        ports::refuse_busy(&policy, Some(&old))?;
        lock(&self.book).set_policy(slot, policy.clone())?;
        let change = self
            .replace(&mut kernel, slot, &policy, &old)
            .inspect_err(|_| {
                // What was there before has no conflict.
                let _ = lock(&self.book).set_policy(slot, old.clone());
                if let Err(error) = self.replace(&mut kernel, slot, &old, &policy) {
                    tracing::warn!(%error, %slot, "the old policy of a slot could not be restored");
                }
            })?;
        drop(kernel);
        self.cut(slot, &change)
    }

    fn replace(
        &self,
        kernel: &mut Kernel,
        slot: Slot,
        new: &Policy,
        old: &Policy,
    ) -> Result<Change, NetworkError> {
        let plan = self.plan(slot)?;
        if new.bandwidth != old.bandwidth {
            plan.shape(&new.bandwidth)?;
        }
        if new.egress != old.egress {
            kernel.close_resolved(slot, plan.address)?;
        }
        self.apply(kernel, slot)
    }

    /// Ends the connections that a change forbids.
    fn cut(&self, slot: Slot, change: &Change) -> Result<(), NetworkError> {
        let own = self.plan(slot)?.address;
        let removed = |test: fn(&Element) -> bool| change.remove.iter().any(test);
        let egress = removed(|element| {
            matches!(
                element,
                Element::Open { .. } | Element::Allow { .. } | Element::Egress { .. }
            )
        });
        let group = removed(|element| matches!(element, Element::Member { .. }));
        let publish = removed(|element| matches!(element, Element::Publish { .. }));
        if !(egress || group || publish) {
            return Ok(());
        }
        let guest = |address| self.pool.slot(address).is_some();
        conntrack::delete(|connection| {
            egress && connection.from == own && !guest(connection.answers)
                || group
                    && connection.touches(own)
                    && guest(connection.from)
                    && guest(connection.answers)
                || publish && connection.answers == own && connection.to != own
        })
        .map(|_| ())
        .map_err(NetworkError::io("end the connections of", own))
    }

    pub(super) fn allow_resolved(
        &self,
        slot: Slot,
        to: &[Ipv4Addr],
        ttl: Duration,
    ) -> Result<(), NetworkError> {
        let mut kernel = lock(&self.kernel);
        let listed = lock(&self.book)
            .get(slot)
            .map(|(_, policy)| matches!(policy.egress, Egress::AllowList { .. }));
        match listed {
            None => Err(NetworkError::UnknownSlot(slot)),
            // With open egress it is reachable anyway, and with none a name opens nothing.
            Some(false) => Ok(()),
            Some(true) => kernel.open_resolved(slot, self.plan(slot)?.address, to, ttl),
        }
    }

    /// Whether slots wait for the end of a VMM that nobody tells of.
    pub(super) fn watches(&self) -> bool {
        lock(&self.book).astray().next().is_some()
    }

    /// Removes slots that were astray and whose VMM has ended.
    pub(super) fn clear_astray(&self) {
        let astray: Vec<_> = lock(&self.book).astray().collect();
        for slot in astray {
            let Ok(plan) = self.plan(slot) else { continue };
            if plan.is_plugged() {
                continue;
            }
            match plan.remove() {
                Ok(()) => lock(&self.book).cleared(slot),
                Err(error) => tracing::warn!(%error, %slot, "a slot astray cannot be removed"),
            }
        }
    }

    /// Cleans or makes one slot; false if there is nothing to do, or if it does not work now.
    pub(super) fn work(&self) -> bool {
        let dirty = lock(&self.dirty).pop_front();
        let done = match dirty {
            Some(slot) => self.clean(slot),
            None => self.prepare(),
        };
        self.freed.notify_waiters();
        done
    }

    fn clean(&self, slot: Slot) -> bool {
        let keep = lock(&self.book).ready() < self.ready;
        let cleaned = self.plan(slot).and_then(|plan| {
            lock(&self.kernel).close_resolved(slot, plan.address)?;
            if keep {
                plan.clean().map(|_| true)
            } else {
                plan.remove().map(|()| false)
            }
        });
        match cleaned {
            Ok(true) => lock(&self.book).cleaned(slot),
            Ok(false) => lock(&self.book).removed(slot),
            Err(error) => {
                tracing::warn!(%error, %slot, "a slot cannot be cleaned, it is removed");
                if let Err(error) = self.plan(slot).and_then(|plan| plan.remove()) {
                    tracing::warn!(%error, %slot, "a slot was not removed as a whole");
                }
                lock(&self.book).removed(slot);
            }
        }
        true
    }

    fn prepare(&self) -> bool {
        let Some(slot) = lock(&self.book).begin_making(self.ready) else {
            return false;
        };
        match self.plan(slot).and_then(|plan| plan.make()) {
            Ok(()) => {
                lock(&self.book).cleaned(slot);
                true
            }
            Err(error) => {
                tracing::warn!(%error, %slot, "a slot cannot be prepared");
                lock(&self.book).removed(slot);
                false
            }
        }
    }

    fn apply(&self, kernel: &mut Kernel, slot: Slot) -> Result<Change, NetworkError> {
        let set = self.elements(&lock(&self.book), slot);
        kernel.apply(slot, set)
    }

    fn elements(&self, book: &Book, slot: Slot) -> BTreeSet<Element> {
        elements_of(&self.names, book, slot)
    }

    pub(super) fn plan(&self, slot: Slot) -> Result<SlotPlan, NetworkError> {
        SlotPlan::new(&self.names, self.pool, self.mtu, slot).ok_or(NetworkError::UnknownSlot(slot))
    }

    pub(super) fn lease(&self, slot: Slot) -> Result<Lease, NetworkError> {
        let plan = self.plan(slot)?;
        Ok(Lease {
            slot,
            address: plan.address,
            netns: plan.netns,
            tap: guest::TAP.to_owned(),
            mac: guest::mac(),
            guest_address: guest::ADDRESS,
            gateway: guest::GATEWAY,
            prefix: guest::PREFIX,
            mtu: self.mtu,
        })
    }

    pub(super) fn leftovers(&self) -> Result<Vec<Leftover>, NetworkError> {
        // A slot that is being made or removed is in the books before or after the look, not necessarily both times.
        let before = lock(&self.book).made();
        let found = leftovers::all(self.names.run_root())?;
        let book = lock(&self.book);
        let own = self.names.mark().as_str();
        let unowned = |object: &Leftover| {
            if object.mark != own {
                return !leftovers::is_served(self.names.run_root(), &object.mark);
            }
            match leftovers::slot_of(&self.names, object) {
                Some(slot) => !before.contains(&slot) && !book.is_made(slot),
                None => object.name != self.names.anchor() && object.kind != LeftoverKind::Table,
            }
        };
        Ok(found.into_iter().filter(unowned).collect())
    }
}

/// Elements of a slot as the books are.
pub(super) fn elements_of(names: &Names, book: &Book, slot: Slot) -> BTreeSet<Element> {
    match (book.get(slot), book.pool().address(slot)) {
        (Some((_, policy)), Some(address)) => {
            elements(&names.link(slot), address, policy, book.group(policy))
        }
        _ => BTreeSet::new(),
    }
}
