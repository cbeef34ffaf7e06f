//! What every network must do, as tests that know no implementation.
//!
//! A [`Subject`] brings a host; each scenario opens a network on it. Scenarios panic when the network does not conform,
//! so they are run by tests only.
#![expect(
    clippy::unwrap_used,
    reason = "scenarios are tests: they fail by panicking"
)]

mod leases;
mod policies;

use std::net::Ipv4Addr;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{Held, Lease, Network, NetworkError, Opened, Pool};

/// Address of a server of the internet that answers on port 80 of a subject's host.
pub const WEB: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// Address of a server in a private network of that host.
pub const PRIVATE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 7);
/// Host port on which a process of that host listens.
pub const BUSY_PORT: u16 = 7777;

/// A host on which networks are opened, one after the other.
#[async_trait]
pub trait Subject: Send + Sync {
    /// Opens the network of the same daemon each time.
    async fn open(
        &self,
        pool: Pool,
        held: Vec<Held>,
    ) -> Result<(Arc<dyn Network>, Opened), NetworkError>;

    /// Ends the daemon as a kill does.
    async fn kill(&self, network: Arc<dyn Network>);

    /// Whether the guest in `from` opens a connection to port 80 of `to`.
    async fn passes(&self, from: &Lease, to: Ipv4Addr) -> bool;
}

/// A scenario of the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Leases have addresses of their own and the same inside.
    LeasesDiffer,
    /// A full pool refuses, and takes again after a slot was given back.
    Exhausted,
    /// What nobody has cannot be used or given back.
    UnknownSlot,
    /// A published port has one owner.
    PortConflict,
    /// A port of a process of the host is refused.
    BusyPort,
    /// A policy that is refused leaves the old one.
    RefusedPolicyChangesNothing,
    /// After a kill, held slots go on and others are free.
    Adopt,
    /// A slot from another pool, or held twice, is told as lost.
    Lost,
    /// Groups, and only they, connect guests.
    Groups,
    /// Egress: open, none, a list, names.
    Egress,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::LeasesDiffer,
        Self::Exhausted,
        Self::UnknownSlot,
        Self::PortConflict,
        Self::BusyPort,
        Self::RefusedPolicyChangesNothing,
        Self::Adopt,
        Self::Lost,
        Self::Groups,
        Self::Egress,
    ];

    /// Runs it on `subject`; panics if the network does not conform.
    pub async fn run(self, subject: &dyn Subject) {
        match self {
            Self::LeasesDiffer => leases::differ(subject).await,
            Self::Exhausted => leases::exhausted(subject).await,
            Self::UnknownSlot => leases::unknown(subject).await,
            Self::PortConflict => policies::port_conflict(subject).await,
            Self::BusyPort => policies::busy_port(subject).await,
            Self::RefusedPolicyChangesNothing => policies::refused(subject).await,
            Self::Adopt => leases::adopt(subject).await,
            Self::Lost => leases::lost(subject).await,
            Self::Groups => policies::groups(subject).await,
            Self::Egress => policies::egress(subject).await,
        }
    }
}

/// Opens a network with five slots.
async fn small(subject: &dyn Subject) -> Arc<dyn Network> {
    subject.open(pool(), vec![]).await.unwrap().0
}

fn pool() -> Pool {
    "10.99.0.0/29".parse().unwrap()
}
