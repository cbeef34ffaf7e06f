//! The network of a guest as the guest sees it.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::failure::FailureKind;

/// Smallest packet every IPv4 host takes in one piece; RFC 791.
const MIN_MTU: u16 = 576;
/// Name servers and search domains a guest can be told. Its resolver looks at no more than 3 and 6
/// of them in most systems.
const MAX_ENTRIES: usize = 16;
/// Longest domain name; RFC 1035.
const MAX_DOMAIN: usize = 253;

/// Addresses of the guest's one network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestNetwork {
    /// Address of the guest.
    pub address: Ipv4Addr,
    /// Length of the network's prefix in bits.
    pub prefix: u8,
    /// Where packets for all other networks go; inside the prefix.
    pub gateway: Ipv4Addr,
    /// Longest packet in bytes.
    pub mtu: u16,
    /// Name servers, the preferred one first. Without any the image's own `/etc/resolv.conf` counts.
    pub dns: Vec<IpAddr>,
    /// Domains in which short names are looked up.
    pub search: Vec<String>,
}

impl GuestNetwork {
    /// Refuses what no agent could carry out.
    ///
    /// # Errors
    /// A [`Failure`] of kind `Invalid` that names the field.
    pub fn validate(&self) -> Result<(), Failure> {
        let usable = |address: Ipv4Addr| {
            !(address.is_unspecified()
                || address.is_loopback()
                || address.is_multicast()
                || address.is_broadcast())
        };
        let fields = [
            ("network.address", usable(self.address)),
            ("network.prefix", (1..=31).contains(&self.prefix)),
            (
                "network.gateway",
                usable(self.gateway)
                    && self.gateway != self.address
                    && same_network(self.address, self.gateway, self.prefix),
            ),
            ("network.mtu", self.mtu >= MIN_MTU),
            ("network.dns", self.dns.len() <= MAX_ENTRIES),
            (
                "network.search",
                self.search.len() <= MAX_ENTRIES && self.search.iter().all(|it| is_domain(it)),
            ),
        ];
        match fields.iter().find(|(_, valid)| !valid) {
            Some((field, _)) => Err(Failure::new(
                FailureKind::Invalid,
                format!("{field} cannot be used"),
            )),
            None => Ok(()),
        }
    }
}

fn same_network(one: Ipv4Addr, other: Ipv4Addr, prefix: u8) -> bool {
    let different = one.to_bits() ^ other.to_bits();
    different.leading_zeros() >= u32::from(prefix)
}

fn is_domain(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_DOMAIN
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> GuestNetwork {
        GuestNetwork {
            address: Ipv4Addr::new(10, 0, 0, 2),
            prefix: 30,
            gateway: Ipv4Addr::new(10, 0, 0, 1),
            mtu: 1500,
            dns: vec![IpAddr::from([10, 0, 0, 1])],
            search: vec!["coppice.internal".into()],
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        network().validate().unwrap();
        let check = |field: &str, change: fn(&mut GuestNetwork)| {
            let mut changed = network();
            change(&mut changed);
            let failure = changed.validate().unwrap_err();
            assert_eq!(failure.kind, FailureKind::Invalid);
            assert!(
                failure.message.starts_with(&format!("network.{field} ")),
                "{failure}"
            );
        };
        check("address", |it| it.address = Ipv4Addr::LOCALHOST);
        check("prefix", |it| it.prefix = 0);
        check("prefix", |it| it.prefix = 33);
        check("gateway", |it| it.gateway = Ipv4Addr::new(10, 0, 0, 5));
        check("gateway", |it| it.gateway = it.address);
        check("mtu", |it| it.mtu = 500);
        check("dns", |it| it.dns = vec![IpAddr::from([10, 0, 0, 1]); 17]);
        check("search", |it| {
            it.search = vec!["a\nnameserver 6.6.6.6".into()];
        });
        check("search", |it| it.search = vec![String::new()]);
    }
}
