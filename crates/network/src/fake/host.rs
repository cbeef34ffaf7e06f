//! What stays when a fake network is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::plan::Element;
use crate::{Lack, LeftoverKind, Protocol, Slot, Traffic};

/// A host on which fake networks are opened, one after the other or at once.
#[derive(Debug, Clone, Default)]
pub struct FakeHost(Arc<Mutex<State>>);

#[derive(Debug, Default)]
pub(super) struct State {
    /// Slots made, by mark, with what is in the sets for them.
    pub(super) slots: BTreeMap<(String, Slot), Made>,
    /// Objects put there by a test, with their mark.
    pub(super) strays: BTreeSet<(LeftoverKind, String, String)>,
    /// Marks that are served.
    pub(super) serving: BTreeSet<String>,
    /// What is missing.
    pub(super) lacks: Vec<Lack>,
    /// Ports on which processes of the host listen.
    pub(super) busy: BTreeSet<(Protocol, u16)>,
    /// Refuse to make slots.
    pub(super) broken: bool,
}

#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) elements: BTreeSet<Element>,
    pub(super) resolved: BTreeSet<Ipv4Addr>,
    pub(super) traffic: Traffic,
}

impl FakeHost {
    /// A host that has everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets it lack something from now on.
    pub fn lack(&self, lack: Lack) {
        self.lock().lacks.push(lack);
    }

    /// Lets a process of the host listen on a port.
    pub fn listen(&self, protocol: Protocol, port: u16) {
        self.lock().busy.insert((protocol, port));
    }

    /// Lets making slots fail, or work again.
    pub fn set_broken(&self, broken: bool) {
        self.lock().broken = broken;
    }

    /// Puts an object there that nobody owns.
    pub fn stray(&self, kind: LeftoverKind, name: &str, mark: &str) {
        self.lock()
            .strays
            .insert((kind, name.to_owned(), mark.to_owned()));
    }

    /// Lets bytes pass a slot.
    pub fn pass(&self, mark: &str, slot: Slot, traffic: Traffic) {
        if let Some(made) = self.lock().slots.get_mut(&(mark.to_owned(), slot)) {
            made.traffic.rx_bytes += traffic.rx_bytes;
            made.traffic.tx_bytes += traffic.tx_bytes;
        }
    }

    /// Everything there is, as lines; for comparing before and after.
    pub fn objects(&self) -> BTreeSet<String> {
        let state = self.lock();
        let slots = state
            .slots
            .keys()
            .map(|(mark, slot)| format!("slot {mark} {slot}"));
        let strays = state
            .strays
            .iter()
            .map(|(kind, name, _)| format!("{kind:?} {name}"));
        slots.chain(strays).collect()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
