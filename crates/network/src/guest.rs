//! What every guest sees of its network, the same in each slot.
//!
//! A memory image keeps the interface, the routes, the neighbour table and listening sockets of its guest. They stay
//! right in any slot because nothing of this depends on the slot. The addresses are link-local ones (RFC 3927), which
//! no router forwards; the hardware addresses are locally administered.

use std::net::Ipv4Addr;

/// Address of the guest.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 100, 2);
/// Gateway and name server of the guest: the TAP's own address.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 100, 1);
/// Length of the prefix that holds both.
pub const PREFIX: u8 = 30;
/// Hardware address of the guest's interface.
pub const MAC: [u8; 6] = [0x02, 0xc0, 0x99, 0x1c, 0xe0, 0x02];
/// Hardware address of the gateway.
pub const GATEWAY_MAC: [u8; 6] = [0x02, 0xc0, 0x99, 0x1c, 0xe0, 0x01];
/// Name of the TAP in the slot's namespace.
pub const TAP: &str = "tap0";

/// [`MAC`] as people write it.
pub fn mac() -> String {
    MAC.map(|byte| format!("{byte:02x}")).join(":")
}
