//! The network on a Linux kernel.
//!
//! Sockets, threads and rules belong to the network namespace of the thread that calls [`LinuxNetwork::open`].

mod check;
mod claim;
mod conntrack;
mod inner;
mod kernel;
mod leftovers;
mod netns;
mod network;
mod nft;
mod nla;
mod open;
mod ports;
mod route;
mod shape;
mod slot;
mod slot_rules;
mod socket;
#[expect(unsafe_code, reason = "system calls")]
mod sys;
mod sysctl;
mod table;
mod uplinks;

pub use check::check;
pub use claim::{Prospect, prospect};
pub use leftovers::{leftovers, remove_all};
pub use network::LinuxNetwork;
