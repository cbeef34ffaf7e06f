//! A policy as elements of the sets in the host's table.
//!
//! The rules never change; what a slot may do is which sets it is in. So a policy is applied by one small transaction.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::plan::PRIVATE;
use crate::{Egress, Policy, Protocol};

/// One element of one set. `from` is the outside address of the slot it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// The slot is in use: packets with this address pass this link.
    Slot {
        /// Host's end of the veth.
        link: String,
        /// Outside address.
        address: Ipv4Addr,
    },
    /// Everything but private networks is open.
    Open {
        /// Slot.
        from: Ipv4Addr,
    },
    /// A block that is open before anything is forbidden.
    Allow {
        /// Slot.
        from: Ipv4Addr,
        /// Block.
        to: Ipv4Net,
    },
    /// A block that is open as far as it is not private.
    Egress {
        /// Slot.
        from: Ipv4Addr,
        /// Block.
        to: Ipv4Net,
    },
    /// The group of a sender.
    GroupOf {
        /// Slot.
        from: Ipv4Addr,
        /// Number of the group.
        group: u32,
    },
    /// A receiver in a group.
    Member {
        /// Slot.
        address: Ipv4Addr,
        /// Number of the group.
        group: u32,
    },
    /// A published port.
    Publish {
        /// Transport.
        protocol: Protocol,
        /// Address of the host; `None` is all.
        host_ip: Option<Ipv4Addr>,
        /// Port of the host.
        host_port: u16,
        /// Slot.
        to: Ipv4Addr,
        /// Port of the guest.
        guest_port: u16,
    },
}

/// Elements of a slot with this policy. `group` is the number of the policy's group.
pub fn elements(
    link: &str,
    address: Ipv4Addr,
    policy: &Policy,
    group: Option<u32>,
) -> BTreeSet<Element> {
    let mut set = BTreeSet::from([Element::Slot {
        link: link.to_owned(),
        address,
    }]);
    if let Some(group) = group {
        set.insert(Element::GroupOf {
            from: address,
            group,
        });
        set.insert(Element::Member { address, group });
    }
    let mut allow = policy.allow.clone();
    let mut egress = Vec::new();
    match &policy.egress {
        Egress::Open => {
            set.insert(Element::Open { from: address });
        }
        Egress::None => {}
        Egress::AllowList { cidrs, .. } => {
            let (private, public): (Vec<_>, Vec<_>) = cidrs.iter().copied().partition(is_private);
            allow.extend(private);
            egress = public;
        }
    }
    // The kernel refuses overlapping blocks of one set.
    for to in Ipv4Net::aggregate(&allow) {
        set.insert(Element::Allow { from: address, to });
    }
    for to in Ipv4Net::aggregate(&egress) {
        set.insert(Element::Egress { from: address, to });
    }
    // Ports of loopback addresses are none of the kernel's: whoever listens there leads on.
    let led = policy.publish.iter().filter(|port| !port.is_local());
    set.extend(led.map(|port| Element::Publish {
        protocol: port.protocol,
        host_ip: port.host_ip,
        host_port: port.host_port,
        to: address,
        guest_port: port.guest_port,
    }));
    set
}

/// Whether a block lies within one that is closed by default.
pub fn is_private(block: &Ipv4Net) -> bool {
    PRIVATE.iter().any(|private| private.contains(block))
}

/// Steps from one set of elements to another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// To be removed.
    pub remove: Vec<Element>,
    /// To be added, after that.
    pub add: Vec<Element>,
}

impl Change {
    /// Steps from `old` to `new`.
    pub fn between(old: &BTreeSet<Element>, new: &BTreeSet<Element>) -> Self {
        Self {
            remove: old.difference(new).cloned().collect(),
            add: new.difference(old).cloned().collect(),
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 208, 0, 2);

    fn of(policy: &Policy) -> BTreeSet<Element> {
        elements("cp00c0ffee2", ADDRESS, policy, None)
    }

    fn listed(cidrs: &[&str]) -> BTreeSet<Element> {
        of(&Policy {
            egress: Egress::AllowList {
                cidrs: cidrs.iter().map(|block| block.parse().unwrap()).collect(),
                domains: vec![],
            },
            ..Policy::default()
        })
    }

    #[test]
    fn a_private_block_on_the_list_opens_itself_and_a_wide_one_opens_nothing_private() {
        let set = listed(&["10.1.2.0/24", "0.0.0.0/0"]);
        let allow = Element::Allow {
            from: ADDRESS,
            to: "10.1.2.0/24".parse().unwrap(),
        };
        let wide = Element::Egress {
            from: ADDRESS,
            to: "0.0.0.0/0".parse().unwrap(),
        };
        assert!(set.contains(&allow) && set.contains(&wide), "{set:?}");
        assert_eq!(set.len(), 3, "{set:?}");
    }

    #[test]
    fn only_open_egress_is_open() {
        let open = Element::Open { from: ADDRESS };
        assert!(of(&Policy::default()).contains(&open));
        assert!(!listed(&["192.0.2.0/24"]).contains(&open));
        let none = of(&Policy {
            egress: Egress::None,
            ..Policy::default()
        });
        assert_eq!(none.len(), 1, "{none:?}");
    }

    #[test]
    fn a_port_of_a_loopback_address_is_not_handed_to_the_kernel() {
        let port = |host_ip: Option<[u8; 4]>, host_port| crate::Publish {
            protocol: Protocol::Tcp,
            host_ip: host_ip.map(Ipv4Addr::from),
            host_port,
            guest_port: 80,
        };
        let set = of(&Policy {
            publish: vec![port(Some([127, 0, 0, 1]), 1), port(None, 2)],
            ..Policy::default()
        });
        let led: Vec<_> = set
            .iter()
            .filter_map(|element| match element {
                Element::Publish { host_port, .. } => Some(*host_port),
                _ => None,
            })
            .collect();
        assert_eq!(led, [2]);
    }

    fn block() -> impl Strategy<Value = Ipv4Net> {
        (any::<u32>(), 0_u8..=32).prop_map(|(bits, len)| Ipv4Net::new_assert(bits.into(), len))
    }

    proptest! {
        #[test]
        fn blocks_of_one_set_never_overlap_and_nothing_is_lost(
            blocks in prop::collection::vec(block(), 0..40), probe in any::<u32>()
        ) {
            let policy = Policy { allow: blocks.clone(), ..Policy::default() };
            let made: Vec<Ipv4Net> = of(&policy).into_iter().filter_map(|element| match element {
                Element::Allow { to, .. } => Some(to),
                _ => None,
            }).collect();
            for (n, one) in made.iter().enumerate() {
                for other in &made[n + 1..] {
                    prop_assert!(!one.contains(other) && !other.contains(one));
                }
            }
            let probe = Ipv4Addr::from(probe);
            prop_assert_eq!(
                made.iter().any(|net| net.contains(&probe)),
                blocks.iter().any(|net| net.contains(&probe))
            );
        }

        #[test]
        fn a_change_leads_to_the_new_set(
            old in prop::collection::vec(block(), 0..10), new in prop::collection::vec(block(), 0..10)
        ) {
            let old = of(&Policy { allow: old, ..Policy::default() });
            let new = of(&Policy { allow: new, egress: Egress::None, ..Policy::default() });
            let change = Change::between(&old, &new);
            let mut set = old;
            for element in &change.remove {
                prop_assert!(set.remove(element));
            }
            for element in change.add {
                prop_assert!(set.insert(element));
            }
            prop_assert_eq!(set, new);
        }
    }
}
