//! What is in the sets of the host's table, and changing it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use super::nft::{Nft, Transaction};
use super::route::absent;
use super::table;
use crate::plan::{Change, Element, Names, Ruleset, is_private};
use crate::{NetworkError, Pool, Service, Slot};

/// Shortest and longest time that a resolved address stays open. Programs connect some time after they asked.
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// Resolved addresses of one slot; beyond, those that end first are closed.
const MOST_RESOLVED: usize = 1024;

/// The host's table.
pub(super) struct Kernel {
    nft: Nft,
    names: Names,
    pool: Pool,
    dns: Option<SocketAddrV4>,
    applied: BTreeMap<Slot, BTreeSet<Element>>,
    resolved: BTreeMap<Slot, BTreeMap<Ipv4Addr, Instant>>,
    services: BTreeSet<Service>,
}

impl Kernel {
    /// Replaces the table by one with these elements.
    pub(super) fn load(
        names: &Names,
        pool: Pool,
        dns: Option<SocketAddrV4>,
        applied: BTreeMap<Slot, BTreeSet<Element>>,
    ) -> Result<Self, NetworkError> {
        let mut kernel = Self {
            nft: Nft::open().map_err(NetworkError::io("open", "nftables"))?,
            names: names.clone(),
            pool,
            dns,
            applied,
            resolved: BTreeMap::new(),
            services: BTreeSet::new(),
        };
        kernel.reload()?;
        Ok(kernel)
    }

    /// Gives a slot these elements instead of those it has. Returns what was changed.
    pub(super) fn apply(
        &mut self,
        slot: Slot,
        elements: BTreeSet<Element>,
    ) -> Result<Change, NetworkError> {
        let empty = BTreeSet::new();
        let change = Change::between(self.applied.get(&slot).unwrap_or(&empty), &elements);
        let old = if elements.is_empty() {
            self.applied.remove(&slot)
        } else {
            self.applied.insert(slot, elements)
        };
        let mut transaction = Transaction::default();
        transaction.change(&self.names.table(), &change);
        if let Err(error) = self.commit(&transaction) {
            match old {
                Some(old) => self.applied.insert(slot, old),
                None => self.applied.remove(&slot),
            };
            return Err(error);
        }
        Ok(change)
    }

    /// Opens addresses that a slot resolved.
    pub(super) fn open_resolved(
        &mut self,
        slot: Slot,
        from: Ipv4Addr,
        addresses: &[Ipv4Addr],
        ttl: Duration,
    ) -> Result<(), NetworkError> {
        let (now, ttl) = (Instant::now(), ttl.clamp(SHORTEST, LONGEST));
        let known = self.resolved.entry(slot).or_default();
        known.retain(|_, until| *until > now);
        let mut fresh: Vec<_> = addresses
            .iter()
            .copied()
            .filter(|to| !is_private(&(*to).into()))
            .filter(|to| known.get(to).is_none_or(|until| *until < now + ttl))
            .map(|to| (to, ttl))
            .collect();
        fresh.sort_unstable();
        fresh.dedup();
        fresh.truncate(MOST_RESOLVED);
        let mut closing: Vec<_> = fresh
            .iter()
            .copied()
            .filter(|(to, _)| known.contains_key(to))
            .collect();
        known.extend(fresh.iter().map(|(to, _)| (*to, now + ttl)));
        while known.len() > MOST_RESOLVED {
            let Some(first) = known
                .iter()
                .min_by_key(|(_, until)| **until)
                .map(|(to, _)| *to)
            else {
                break;
            };
            known.remove(&first);
            closing.push((first, ttl));
        }
        let table = self.names.table();
        let mut renew = Transaction::default();
        renew.resolved(false, &table, from, &closing);
        renew.resolved(true, &table, from, &fresh);
        let mut add = Transaction::default();
        add.resolved(true, &table, from, &fresh);
        // One that was to be renewed has just ended.
        self.nft
            .commit(&renew)
            .or_else(|_| self.nft.commit(&add))
            .map_err(NetworkError::io("open resolved addresses in", table))
    }

    /// Closes the addresses that a slot resolved.
    pub(super) fn close_resolved(
        &mut self,
        slot: Slot,
        from: Ipv4Addr,
    ) -> Result<(), NetworkError> {
        let table = self.names.table();
        for (to, _) in self.resolved.remove(&slot).unwrap_or_default() {
            let mut one = Transaction::default();
            one.resolved(false, &table, from, &[(to, SHORTEST)]);
            // Each for itself: one that has ended is not there any more.
            absent(self.nft.commit(&one))
                .map_err(NetworkError::io("close resolved addresses in", &table))?;
        }
        Ok(())
    }

    /// Replaces the list of the host's ports that guests may reach.
    pub(super) fn set_services(&mut self, services: &[Service]) -> Result<(), NetworkError> {
        let new: BTreeSet<_> = services.iter().copied().collect();
        let old = std::mem::replace(&mut self.services, new.clone());
        let table = self.names.table();
        let mut transaction = Transaction::default();
        for service in old.difference(&new) {
            transaction.service(false, &table, service.protocol, service.port);
        }
        for service in new.difference(&old) {
            transaction.service(true, &table, service.protocol, service.port);
        }
        self.commit(&transaction)
            .inspect_err(|_| self.services = old)
    }

    /// Commits a transaction that leads to what the books say. If the table is not as we left it, because somebody
    /// flushed all rules for example, it is loaded anew.
    fn commit(&mut self, transaction: &Transaction) -> Result<(), NetworkError> {
        let table = self.names.table();
        let Err(error) = self.nft.commit(transaction) else {
            return Ok(());
        };
        tracing::warn!(%error, table, "the table was changed by somebody else, it is loaded anew");
        self.reload()
    }

    fn reload(&mut self) -> Result<(), NetworkError> {
        let elements = self.applied.values().flatten().cloned().collect();
        let services: Vec<_> = self.services.iter().copied().collect();
        let ruleset = Ruleset {
            names: &self.names,
            pool: self.pool,
            dns: self.dns,
            elements: &elements,
            services: &services,
        };
        table::load(&self.names.table(), &ruleset.text())?;
        self.resolved.clear();
        Ok(())
    }
}
