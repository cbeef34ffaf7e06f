//! What a machine gets of the network.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Number of a slot in its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(pub u32);

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A slot in somebody's use. The constants of [`crate::guest`] hold in every one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its number; all that has to be recorded to find it again.
    pub slot: Slot,
    /// Address under which the guest is reached from outside its slot.
    pub address: Ipv4Addr,
    /// The slot's network namespace, a file for `setns(2)`. The VMM runs in it.
    pub netns: PathBuf,
    /// The TAP's name in that namespace, made for one queue.
    pub tap: String,
    /// Hardware address the guest must have.
    pub mac: String,
    /// Address the guest must have.
    pub guest_address: Ipv4Addr,
    /// Its gateway and name server.
    pub gateway: Ipv4Addr,
    /// Length of the prefix of its address.
    pub prefix: u8,
    /// MTU of its interface in bytes.
    pub mtu: u16,
}
