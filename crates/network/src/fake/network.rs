//! The fake network.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;

use super::host::{FakeHost, Made, State};
use super::reach;
use crate::plan::{Book, Element, Names, Taken, elements};
use crate::{
    Config, Egress, Held, Lease, Leftover, LeftoverKind, Network, NetworkError, Opened, Policy,
    Pool, Service, Slot, Traffic, Usage,
};

/// A network of a [`FakeHost`].
#[derive(Debug)]
pub struct FakeNetwork {
    host: FakeHost,
    names: Names,
    pool: Pool,
    mtu: u16,
    book: Mutex<Book>,
}

impl FakeNetwork {
    /// Opens it: adopts what is held and removes everything else of its mark.
    pub fn open(
        host: &FakeHost,
        config: &Config,
        held: &[Held],
    ) -> Result<(Arc<Self>, Opened), NetworkError> {
        let names = Names::new(config);
        let mark = names.mark().to_string();
        let pool = config
            .pool
            .or_else(|| Pool::defaults().next())
            .ok_or_else(|| NetworkError::NotReady(vec![]))?;
        let mut state = host.lock();
        if state.lacks.iter().any(|lack| lack.fatal) {
            return Err(NetworkError::NotReady(state.lacks.clone()));
        }
        if !state.serving.insert(mark.clone()) {
            return Err(NetworkError::MarkInUse { mark });
        }
        let mut book = Book::new(pool);
        let mut opened = Opened {
            lacks: state.lacks.clone(),
            ..Opened::default()
        };
        for one in held {
            if !book.hold(one) {
                opened.lost.push(one.slot);
            } else if state.slots.contains_key(&(mark.clone(), one.slot)) {
                opened.adopted.push(one.slot);
            } else {
                opened.remade.push(one.slot);
            }
        }
        opened.removed = remove_unowned(&mut state, &names, &book);
        for (slot, _, policy) in book.used() {
            let set = set_of(&names, &book, slot, policy);
            state
                .slots
                .entry((mark.clone(), slot))
                .or_default()
                .elements = set;
        }
        drop(state);
        let network = Arc::new(Self {
            host: host.clone(),
            names,
            pool,
            mtu: config.mtu.unwrap_or(1500),
            book: Mutex::new(book),
        });
        Ok((network, opened))
    }

    /// Whether the rules let the guest in `from` open a connection to `to`, the outside address of a slot in use or
    /// an address outside of the host.
    pub fn passes(&self, from: Slot, to: Ipv4Addr) -> bool {
        let state = self.host.lock();
        let Some(sender) = state.slots.get(&self.key(from)) else {
            return false;
        };
        if !self.pool.block().contains(&to) {
            return reach::leaves(sender, to);
        }
        let Some(receiver) = self.owner_of(to) else {
            return false;
        };
        state
            .slots
            .get(&self.key(receiver.slot))
            .is_some_and(|receiver| reach::together(&sender.elements, &receiver.elements))
    }

    fn key(&self, slot: Slot) -> (String, Slot) {
        (self.names.mark().to_string(), slot)
    }

    fn lease(&self, slot: Slot) -> Option<Lease> {
        Some(Lease {
            slot,
            address: self.pool.address(slot)?,
            netns: self.names.netns(slot),
            tap: crate::guest::TAP.to_owned(),
            mac: crate::guest::mac(),
            guest_address: crate::guest::ADDRESS,
            gateway: crate::guest::GATEWAY,
            prefix: crate::guest::PREFIX,
            mtu: self.mtu,
        })
    }

    fn refuse_busy(
        &self,
        state: &State,
        policy: &Policy,
        old: Option<&Policy>,
    ) -> Result<(), NetworkError> {
        let new =
            |key| old.is_none_or(|old| !old.publish.iter().any(|port| port.key().conflicts(&key)));
        for key in policy
            .publish
            .iter()
            .map(crate::Publish::key)
            .filter(|key| new(*key))
        {
            if state.busy.contains(&(key.protocol, key.host_port)) {
                return Err(NetworkError::PortInUse {
                    protocol: key.protocol,
                    port: key.host_port,
                    by: "a process of the host".to_owned(),
                });
            }
        }
        Ok(())
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Nothing panics while it holds the lock.
        self.book
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for FakeNetwork {
    fn drop(&mut self) {
        self.host.lock().serving.remove(self.names.mark().as_str());
    }
}

fn set_of(names: &Names, book: &Book, slot: Slot, policy: &Policy) -> BTreeSet<Element> {
    book.pool()
        .address(slot)
        .map_or_else(BTreeSet::new, |address| {
            elements(&names.link(slot), address, policy, book.group(policy))
        })
}

fn remove_unowned(state: &mut State, names: &Names, book: &Book) -> Vec<Leftover> {
    let mark = names.mark().to_string();
    let gone: Vec<_> = state
        .slots
        .keys()
        .filter(|(of, slot)| *of == mark && book.get(*slot).is_none())
        .cloned()
        .collect();
    let mut removed: Vec<_> = gone
        .into_iter()
        .map(|key| {
            state.slots.remove(&key);
            Leftover {
                kind: LeftoverKind::Namespace,
                name: names.netns(key.1).display().to_string(),
                mark: mark.clone(),
            }
        })
        .collect();
    let strays = std::mem::take(&mut state.strays);
    for (kind, name, of) in strays {
        if of == mark {
            removed.push(Leftover {
                kind,
                name,
                mark: of,
            });
        } else {
            state.strays.insert((kind, name, of));
        }
    }
    removed
}

#[async_trait]
impl Network for FakeNetwork {
    async fn take(&self, owner: &str, policy: Policy) -> Result<Lease, NetworkError> {
        let mut state = self.host.lock();
        let mut book = self.book();
        book.check(&policy, None)?;
        self.refuse_busy(&state, &policy, None)?;
        let slot = match book.take(owner, &policy)? {
            Taken::Ready(slot) | Taken::Make(slot) => slot,
            // Cleaning takes no time here, so nothing is ever waited for.
            Taken::Wait => unreachable!("a fake slot is cleaned at once"),
        };
        if state.broken {
            book.give_back(slot)?;
            book.removed(slot);
            return Err(NetworkError::Io {
                action: "make",
                object: self.names.netns(slot).display().to_string(),
                source: std::io::ErrorKind::Other.into(),
            });
        }
        let made = Made {
            elements: set_of(&self.names, &book, slot, &policy),
            ..Made::default()
        };
        state.slots.insert(self.key(slot), made);
        self.lease(slot).ok_or(NetworkError::UnknownSlot(slot))
    }

    async fn give_back(&self, slot: Slot) -> Result<(), NetworkError> {
        let mut state = self.host.lock();
        let mut book = self.book();
        book.give_back(slot)?;
        book.removed(slot);
        state.slots.remove(&self.key(slot));
        Ok(())
    }

    async fn set_policy(&self, slot: Slot, policy: Policy) -> Result<(), NetworkError> {
        let mut state = self.host.lock();
        let mut book = self.book();
        let old = book
            .get(slot)
            .map(|(_, old)| old.clone())
            .ok_or(NetworkError::UnknownSlot(slot))?;
        book.check(&policy, Some(slot))?;
        self.refuse_busy(&state, &policy, Some(&old))?;
        book.set_policy(slot, policy.clone())?;
        let set = set_of(&self.names, &book, slot, &policy);
        let made = state.slots.entry(self.key(slot)).or_default();
        made.elements = set;
        if old.egress != policy.egress {
            made.resolved.clear();
        }
        Ok(())
    }

    async fn allow_resolved(
        &self,
        slot: Slot,
        addresses: &[Ipv4Addr],
        _ttl: Duration,
    ) -> Result<(), NetworkError> {
        let mut state = self.host.lock();
        let book = self.book();
        let (_, policy) = book.get(slot).ok_or(NetworkError::UnknownSlot(slot))?;
        if !matches!(policy.egress, Egress::AllowList { .. }) {
            return Ok(());
        }
        let made = state.slots.entry(self.key(slot)).or_default();
        made.resolved.extend(addresses);
        Ok(())
    }

    async fn set_services(&self, _services: &[Service]) -> Result<(), NetworkError> {
        Ok(())
    }

    async fn traffic(&self, slot: Slot) -> Result<Traffic, NetworkError> {
        let state = self.host.lock();
        let made = state
            .slots
            .get(&self.key(slot))
            .ok_or(NetworkError::UnknownSlot(slot))?;
        Ok(made.traffic)
    }

    async fn leftovers(&self) -> Result<Vec<Leftover>, NetworkError> {
        let state = self.host.lock();
        let stray = |(kind, name, mark): &(LeftoverKind, String, String)| Leftover {
            kind: *kind,
            name: name.clone(),
            mark: mark.clone(),
        };
        let own = self.names.mark().as_str();
        let alive = |mark: &str| mark != own && state.serving.contains(mark);
        Ok(state
            .strays
            .iter()
            .filter(|(_, _, mark)| !alive(mark))
            .map(stray)
            .collect())
    }

    fn leases(&self) -> Vec<(String, Lease)> {
        let book = self.book();
        book.used()
            .filter_map(|(slot, owner, _)| Some((owner.to_owned(), self.lease(slot)?)))
            .collect()
    }

    fn owner_of(&self, address: Ipv4Addr) -> Option<Held> {
        let slot = self.pool.slot(address)?;
        let book = self.book();
        let (owner, policy) = book.get(slot)?;
        Some(Held {
            owner: owner.to_owned(),
            slot,
            policy: policy.clone(),
        })
    }

    fn pool(&self) -> Pool {
        self.pool
    }

    fn usage(&self) -> Usage {
        let book = self.book();
        Usage {
            capacity: self.pool.capacity(),
            in_use: book.in_use(),
            ready: book.ready(),
        }
    }
}
