//! Who has which slot, and which comes next.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::{Held, NetworkError, Policy, Pool, PortKey, Slot};

/// The slots of a pool.
///
/// A slot is free (not made), ready (made and clean), in use, being cleaned, or astray (nobody's, but a VMM is in it). Free and ready ones wait in queues,
/// so that of each the one that was used least recently comes first.
#[derive(Debug)]
pub struct Book {
    pool: Pool,
    free: VecDeque<Slot>,
    ready: VecDeque<Slot>,
    cleaning: BTreeSet<Slot>,
    astray: BTreeSet<Slot>,
    used: BTreeMap<Slot, Used>,
    ports: BTreeMap<PortKey, Slot>,
    groups: HashMap<String, Group>,
    next_group: u32,
}

#[derive(Debug)]
struct Used {
    owner: String,
    policy: Policy,
}

#[derive(Debug)]
struct Group {
    number: u32,
    members: usize,
}

/// What taking a slot came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// This one is prepared.
    Ready(Slot),
    /// This one has to be made first.
    Make(Slot),
    /// All that are not in use are being cleaned.
    Wait,
}

impl Book {
    /// All slots of `pool` free.
    pub fn new(pool: Pool) -> Self {
        Self {
            pool,
            free: pool.slots().collect(),
            ready: VecDeque::new(),
            cleaning: BTreeSet::new(),
            astray: BTreeSet::new(),
            used: BTreeMap::new(),
            ports: BTreeMap::new(),
            groups: HashMap::new(),
            next_group: 1,
        }
    }

    /// The addresses.
    pub fn pool(&self) -> Pool {
        self.pool
    }

    /// Puts a slot that was held before into use.
    ///
    /// False, and nothing changed, if it is not of this pool, not free, or wants what another one has.
    pub fn hold(&mut self, held: &Held) -> bool {
        let fits = self.pool.address(held.slot).is_some() && !self.used.contains_key(&held.slot);
        if !fits || self.check(&held.policy, None).is_err() {
            return false;
        }
        self.free.retain(|slot| *slot != held.slot);
        self.ready.retain(|slot| *slot != held.slot);
        self.enter(held.slot, &held.owner, held.policy.clone());
        true
    }

    /// Gives the next slot to `owner`.
    pub fn take(&mut self, owner: &str, policy: &Policy) -> Result<Taken, NetworkError> {
        self.check(policy, None)?;
        let taken = if let Some(slot) = self.ready.pop_front() {
            Taken::Ready(slot)
        } else if let Some(slot) = self.free.pop_front() {
            Taken::Make(slot)
        } else if self.cleaning.is_empty() {
            return Err(NetworkError::Exhausted {
                pool: self.pool.to_string(),
                capacity: self.pool.capacity(),
            });
        } else {
            return Ok(Taken::Wait);
        };
        if let Taken::Ready(slot) | Taken::Make(slot) = taken {
            self.enter(slot, owner, policy.clone());
        }
        Ok(taken)
    }

    /// Ends the use of a slot; it is being cleaned from now on.
    pub fn give_back(&mut self, slot: Slot) -> Result<(), NetworkError> {
        let used = self
            .used
            .remove(&slot)
            .ok_or(NetworkError::UnknownSlot(slot))?;
        self.leave(&used.policy);
        self.cleaning.insert(slot);
        Ok(())
    }

    /// Replaces the policy of a slot in use, and gives the old one.
    pub fn set_policy(&mut self, slot: Slot, policy: Policy) -> Result<Policy, NetworkError> {
        self.check(&policy, Some(slot))?;
        let used = self
            .used
            .get_mut(&slot)
            .ok_or(NetworkError::UnknownSlot(slot))?;
        let old = std::mem::replace(&mut used.policy, policy.clone());
        // The new group is entered before the old one is left: it may be the same one.
        self.join(slot, &policy);
        self.leave(&old);
        self.ports
            .extend(policy.publish.iter().map(|port| (port.key(), slot)));
        Ok(old)
    }

    /// Takes a free slot to be made ahead, if there are fewer than `wanted` ready.
    pub fn begin_making(&mut self, wanted: usize) -> Option<Slot> {
        if self.ready.len() + self.cleaning.len() >= wanted {
            return None;
        }
        let slot = self.free.pop_front()?;
        self.cleaning.insert(slot);
        Some(slot)
    }

    /// A slot that was made or cleaned is ready.
    pub fn cleaned(&mut self, slot: Slot) {
        if self.cleaning.remove(&slot) {
            self.ready.push_back(slot);
        }
    }

    /// A slot that was made or cleaned is gone.
    pub fn removed(&mut self, slot: Slot) {
        if self.cleaning.remove(&slot) {
            self.free.push_back(slot);
        }
    }

    /// A slot that nobody holds has a VMM in it: nobody gets it until that is gone.
    pub fn stray(&mut self, slot: Slot) {
        if !self.is_made(slot) && self.pool.address(slot).is_some() {
            self.free.retain(|free| *free != slot);
            self.astray.insert(slot);
        }
    }

    /// The slots that are astray.
    pub fn astray(&self) -> impl Iterator<Item = Slot> {
        self.astray.iter().copied()
    }

    /// A slot that was astray is gone.
    pub fn cleared(&mut self, slot: Slot) {
        if self.astray.remove(&slot) {
            self.free.push_back(slot);
        }
    }

    /// How many are ready.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// How many are in use.
    pub fn in_use(&self) -> usize {
        self.used.len()
    }

    /// The slots in use.
    pub fn used(&self) -> impl Iterator<Item = (Slot, &str, &Policy)> {
        self.used
            .iter()
            .map(|(slot, used)| (*slot, used.owner.as_str(), &used.policy))
    }

    /// One slot in use.
    pub fn get(&self, slot: Slot) -> Option<(&str, &Policy)> {
        self.used
            .get(&slot)
            .map(|used| (used.owner.as_str(), &used.policy))
    }

    /// Whether a slot exists on the host: ready, in use, between, or astray.
    pub fn is_made(&self, slot: Slot) -> bool {
        self.used.contains_key(&slot)
            || self.cleaning.contains(&slot)
            || self.astray.contains(&slot)
            || self.ready.contains(&slot)
    }

    /// All slots that exist on the host.
    pub fn made(&self) -> BTreeSet<Slot> {
        let ready = self.ready.iter().chain(&self.cleaning).chain(&self.astray);
        ready.chain(self.used.keys()).copied().collect()
    }

    /// Number of a policy's group, while a slot in use has it.
    pub fn group(&self, policy: &Policy) -> Option<u32> {
        let group = self.groups.get(policy.group.as_ref()?)?;
        Some(group.number)
    }

    /// Whether the slot `except`, or a free one, could have this policy beside all others.
    pub fn check(&self, policy: &Policy, except: Option<Slot>) -> Result<(), NetworkError> {
        policy.validate()?;
        for port in &policy.publish {
            let key = port.key();
            let taken = self
                .ports
                .iter()
                .find(|(other, slot)| Some(**slot) != except && other.conflicts(&key));
            if let Some((_, slot)) = taken {
                return Err(NetworkError::PortInUse {
                    protocol: key.protocol,
                    port: key.host_port,
                    by: self
                        .get(*slot)
                        .map_or_else(String::new, |(owner, _)| owner.to_owned()),
                });
            }
        }
        Ok(())
    }

    fn enter(&mut self, slot: Slot, owner: &str, policy: Policy) {
        self.join(slot, &policy);
        self.used.insert(
            slot,
            Used {
                owner: owner.to_owned(),
                policy,
            },
        );
    }

    fn join(&mut self, slot: Slot, policy: &Policy) {
        self.ports
            .extend(policy.publish.iter().map(|port| (port.key(), slot)));
        if let Some(name) = &policy.group {
            let next = &mut self.next_group;
            let group = self.groups.entry(name.clone()).or_insert_with(|| {
                let number = *next;
                *next = next.wrapping_add(1).max(1);
                Group { number, members: 0 }
            });
            group.members += 1;
        }
    }

    fn leave(&mut self, policy: &Policy) {
        for port in &policy.publish {
            self.ports.remove(&port.key());
        }
        if let Some(name) = &policy.group
            && let Some(group) = self.groups.get_mut(name)
        {
            group.members -= 1;
            if group.members == 0 {
                self.groups.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests;
