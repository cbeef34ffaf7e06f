//! What the rules of the table say, for the fake.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::host::Made;
use crate::plan::{Element, is_private};

/// Whether a connection from the slot `from` to an address outside of the host may be opened.
pub(super) fn leaves(made: &Made, to: Ipv4Addr) -> bool {
    let block = to.into();
    let has = |wanted: fn(&Element) -> Option<ipnet::Ipv4Net>| {
        made.elements
            .iter()
            .filter_map(wanted)
            .any(|net| net.contains(&to))
    };
    let allow = |element: &Element| match element {
        Element::Allow { to, .. } => Some(*to),
        _ => None,
    };
    let egress = |element: &Element| match element {
        Element::Egress { to, .. } => Some(*to),
        Element::Open { .. } => Some(ipnet::Ipv4Net::default()),
        _ => None,
    };
    has(allow) || (!is_private(&block) && (has(egress) || made.resolved.contains(&to)))
}

/// Whether two slots are in one group.
pub(super) fn together(one: &BTreeSet<Element>, other: &BTreeSet<Element>) -> bool {
    let sends = one.iter().find_map(|element| match element {
        Element::GroupOf { group, .. } => Some(*group),
        _ => None,
    });
    other
        .iter()
        .any(|element| matches!(element, Element::Member { group, .. } if Some(*group) == sends))
}
