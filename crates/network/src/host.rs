//! The boundary: what the daemon asks of a host's network.

use std::net::Ipv4Addr;
use std::time::Duration;

use async_trait::async_trait;

use crate::{Lack, Lease, NetworkError, Policy, Pool, Service, Slot};

/// A slot that somebody had before the daemon was started again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Who has it.
    pub owner: String,
    /// The slot.
    pub slot: Slot,
    /// What it may do.
    pub policy: Policy,
}

/// What opening a network found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// Slots taken over with everything that runs in them.
    pub adopted: Vec<Slot>,
    /// Held slots that were not there any more, as after a reboot. They are prepared anew under the same address
    /// and are in use by their owners; a VMM that ran in one has no network.
    pub remade: Vec<Slot>,
    /// Held slots that are not of this pool, or claimed twice. Nobody has them now.
    pub lost: Vec<Slot>,
    /// Slots that nobody holds and that a VMM is in. They are cut off and nobody gets them; one that is held when the
    /// network is opened again is adopted, and one whose VMM ends is removed.
    pub astray: Vec<Slot>,
    /// Objects with this mark that nobody owned and that were removed.
    pub removed: Vec<Leftover>,
    /// Settings of the host that were changed, each as `name: old -> new`.
    pub changed: Vec<String>,
    /// What works only in part here.
    pub lacks: Vec<Lack>,
}

/// Kind of an object on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftoverKind {
    /// A named network namespace.
    Namespace,
    /// An interface of the host.
    Link,
    /// A table of nftables.
    Table,
}

/// An object with the product's mark that no instance uses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leftover {
    /// Its kind.
    pub kind: LeftoverKind,
    /// Its name; for a namespace its path.
    pub name: String,
    /// Mark in its name.
    pub mark: String,
}

/// Bytes that passed a slot in its present use, counted outside of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// To the guest.
    pub rx_bytes: u64,
    /// From the guest.
    pub tx_bytes: u64,
}

/// How full a network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Slots that can exist.
    pub capacity: usize,
    /// Slots that somebody uses.
    pub in_use: usize,
    /// Slots that are prepared and free.
    pub ready: usize,
}

/// The network of a host.
///
/// Opening is the business of the implementation: it takes the slots that are [`Held`] and removes every other
/// object of its mark that no VMM uses, in one step, so that no moment exists in which a running machine is cut off. Dropping a network
/// leaves everything in place for the next daemon.
#[async_trait]
pub trait Network: Send + Sync {
    /// Gives a free slot to `owner`.
    ///
    /// # Errors
    ///
    /// `Exhausted`, `BadPolicy` and `PortInUse` before anything is changed.
    async fn take(&self, owner: &str, policy: Policy) -> Result<Lease, NetworkError>;

    /// Takes the slot back. When this returns, no packet passes between it and anything else, and its published
    /// ports are free; it is cleaned in the background before it is used again. The VMM should be gone.
    ///
    /// # Errors
    ///
    /// `UnknownSlot` when nobody has it.
    async fn give_back(&self, slot: Slot) -> Result<(), NetworkError>;

    /// Replaces the policy of a slot in use. Connections that exist go on unless egress or group forbids them now.
    ///
    /// # Errors
    ///
    /// As [`Self::take`]; the old policy stays.
    async fn set_policy(&self, slot: Slot, policy: Policy) -> Result<(), NetworkError>;

    /// Opens addresses that a name on the slot's allow-list resolved to, for as long as the answer is good (at least
    /// a minute, at most a day). To be called before the guest gets the answer. Private addresses stay closed: a name
    /// cannot open them.
    async fn allow_resolved(
        &self,
        slot: Slot,
        addresses: &[Ipv4Addr],
        ttl: Duration,
    ) -> Result<(), NetworkError>;

    /// Replaces the list of ports of the host itself, such as those of the ingress, that guests with open egress
    /// may reach.
    async fn set_services(&self, services: &[Service]) -> Result<(), NetworkError>;

    /// What passed a slot since it was taken.
    async fn traffic(&self, slot: Slot) -> Result<Traffic, NetworkError>;

    /// Objects of this product that nobody owns: of this mark, and of marks whose daemon is not running.
    async fn leftovers(&self) -> Result<Vec<Leftover>, NetworkError>;

    /// Slots in use with their owners.
    fn leases(&self) -> Vec<(String, Lease)>;

    /// Owner of the slot with this outside address, and what it may do.
    fn owner_of(&self, address: Ipv4Addr) -> Option<Held>;

    /// The addresses.
    fn pool(&self) -> Pool;

    /// How full it is.
    fn usage(&self) -> Usage;
}
