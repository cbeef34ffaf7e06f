//! Machines on the network.
//!
//! Every machine with a network has a *slot*: a network namespace with a TAP for the guest and a veth to the host.
//! Inside every slot the guest has the same address, gateway and MAC ([`guest`]), so a memory image can go on in
//! any slot; outside, each slot has an address of its own from a [`Pool`]. [`Network`] is what the daemon asks;
//! [`linux`] does it on the kernel, `fake` (feature `fake`) in memory, and both
//! pass one suite (`conformance`).

mod config;
mod error;
pub mod guest;
mod host;
mod lease;
pub mod linux;
pub mod plan;
mod pool;

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "fake")]
pub mod fake;

pub use config::{BadMark, Config, Mark};
pub use error::{Lack, NetworkError};
pub use host::{Held, Leftover, LeftoverKind, Network, Opened, Traffic, Usage};
pub use lease::{Lease, Slot};
pub use model::network::{
    BadPolicy, Bandwidth, Egress, Policy, PortKey, Protocol, Publish, Service,
};
pub use pool::{BadPool, Pool};
