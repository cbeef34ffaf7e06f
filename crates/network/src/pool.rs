//! The addresses that slots have outside.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;

use crate::Slot;

/// A block of IPv4 addresses: the second one is the host's, the following ones are the slots'.
///
/// Slot `n` has the address `n` after the block's first; slot 0 and 1 do not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool(Ipv4Net);

/// A block that cannot be a pool.
#[derive(Debug, thiserror::Error)]
pub enum BadPool {
    /// Not written as a block.
    #[error("{0:?} is not an IPv4 block such as 10.208.0.0/16")]
    Syntax(String),
    /// Too small or too large.
    #[error("a pool has a prefix of /{min} to /{max}, not {0}", min = Pool::WIDEST, max = Pool::NARROWEST)]
    Size(Ipv4Net),
}

impl Pool {
    /// Shortest prefix: slot numbers fit into five hexadecimal digits of an interface's name.
    pub const WIDEST: u8 = 12;
    /// Longest prefix: five slots.
    pub const NARROWEST: u8 = 29;
    /// Number of the first slot.
    pub const FIRST_SLOT: u32 = 2;

    /// Makes a pool of a block.
    pub fn new(block: Ipv4Net) -> Result<Self, BadPool> {
        let block = block.trunc();
        if (Self::WIDEST..=Self::NARROWEST).contains(&block.prefix_len()) {
            Ok(Self(block))
        } else {
            Err(BadPool::Size(block))
        }
    }

    /// Blocks tried one after the other when none is configured: corners of 10/8 and 172.16/12 that few networks use.
    pub fn defaults() -> impl Iterator<Item = Self> {
        let ten = (208..=223).map(|second| Ipv4Addr::new(10, second, 0, 0));
        let other = (24..=31).map(|second| Ipv4Addr::new(172, second, 0, 0));
        ten.chain(other)
            .map(|first| Self(Ipv4Net::new_assert(first, 16)))
    }

    /// The block.
    pub fn block(&self) -> Ipv4Net {
        self.0
    }

    /// Address of the host towards guests.
    pub fn host(&self) -> Ipv4Addr {
        self.nth(1)
    }

    /// How many slots there can be.
    pub fn capacity(&self) -> usize {
        (1_usize << (32 - self.0.prefix_len())) - 3
    }

    /// Numbers of all slots.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        let last = (1_u32 << (32 - self.0.prefix_len())) - 2;
        (Self::FIRST_SLOT..=last).map(Slot)
    }

    /// Outside address of `slot`, if it is one of this pool.
    pub fn address(&self, slot: Slot) -> Option<Ipv4Addr> {
        let last = (1_u32 << (32 - self.0.prefix_len())) - 2;
        (Self::FIRST_SLOT..=last)
            .contains(&slot.0)
            .then(|| self.nth(slot.0))
    }

    /// The slot with this outside address.
    pub fn slot(&self, address: Ipv4Addr) -> Option<Slot> {
        let slot = Slot(u32::from(address).checked_sub(u32::from(self.0.network()))?);
        self.address(slot).map(|_| slot)
    }

    /// Whether an address or route of the host shares addresses with this pool.
    pub fn overlaps(&self, other: Ipv4Net) -> bool {
        self.0.contains(&other) || other.contains(&self.0)
    }

    fn nth(&self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.0.network()) + n)
    }
}

impl FromStr for Pool {
    type Err = BadPool;

    fn from_str(text: &str) -> Result<Self, BadPool> {
        let block = text.parse().map_err(|_| BadPool::Syntax(text.to_owned()))?;
        Self::new(block)
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_pool_has_five_slots() {
        let pool: Pool = "10.9.8.7/29".parse().unwrap();
        assert_eq!(pool.host(), Ipv4Addr::new(10, 9, 8, 1));
        let addresses: Vec<_> = pool
            .slots()
            .map(|slot| pool.address(slot).unwrap())
            .collect();
        let wanted: Vec<_> = (2..=6).map(|last| Ipv4Addr::new(10, 9, 8, last)).collect();
        assert_eq!(addresses, wanted);
        assert_eq!(pool.capacity(), 5);
        assert_eq!(pool.slot(Ipv4Addr::new(10, 9, 8, 4)), Some(Slot(4)));
        assert_eq!(pool.slot(pool.host()), None);
        assert_eq!(pool.slot(Ipv4Addr::new(10, 9, 7, 255)), None);
        assert_eq!(pool.address(Slot(7)), None);
        assert_eq!(pool.address(Slot(1)), None);
    }

    #[test]
    fn blocks_that_are_no_pool_are_refused_with_a_reason() {
        for (text, reason) in [
            ("10.0.0.0/8", "/12"),
            ("10.0.0.0/30", "/29"),
            ("ten", "block"),
        ] {
            let error = text.parse::<Pool>().unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn overlap_is_seen_both_ways() {
        let pool: Pool = "10.208.0.0/16".parse().unwrap();
        for (block, overlaps) in [
            ("10.0.0.0/8", true),
            ("10.208.3.4/32", true),
            ("0.0.0.0/0", true),
            ("10.209.0.0/16", false),
        ] {
            assert_eq!(pool.overlaps(block.parse().unwrap()), overlaps, "{block}");
        }
    }
}
