//! Deleting what the host's connection tracking knows of a slot.

use std::io;
use std::net::Ipv4Addr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::nft::IPV4;
use super::nla::{self, Attributes};
use super::socket::{Netlink, message};

/// `NFNL_SUBSYS_CTNETLINK`, in the upper half of a message's type.
const SUBSYSTEM: u16 = 1;
const GET: u16 = SUBSYSTEM << 8 | 1;
const DELETE: u16 = SUBSYSTEM << 8 | 2;
/// `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, `CTA_ID`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;

/// A tracked connection: who asked whom, and who answers where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Connection {
    pub(super) from: Ipv4Addr,
    pub(super) to: Ipv4Addr,
    pub(super) answers: Ipv4Addr,
    pub(super) answered: Ipv4Addr,
}

impl Connection {
    /// Whether one end of it is this address.
    pub(super) fn touches(&self, address: Ipv4Addr) -> bool {
        [self.from, self.to, self.answers, self.answered].contains(&address)
    }
}

/// Deletes the connections that `wanted` picks, and gives their number.
pub(super) fn delete(wanted: impl Fn(&Connection) -> bool) -> io::Result<usize> {
    let mut socket = Netlink::open(NETLINK_NETFILTER)?;
    let mut bodies = Vec::new();
    socket.dump(GET, &[IPV4, 0, 0, 0], |message| {
        let attributes = message.body().get(4..).unwrap_or_default();
        if read(attributes).is_some_and(|connection| wanted(&connection)) {
            bodies.extend(deletion(attributes));
        }
    })?;
    for body in &bodies {
        let sequence = socket.next();
        let request = message(DELETE, NLM_F_REQUEST | NLM_F_ACK, sequence, body);
        // It may have ended by itself meanwhile.
        super::route::absent(socket.exchange(&request, sequence, sequence, |_| ()))?;
    }
    Ok(bodies.len())
}

/// The request that deletes this very connection, and not a later one between the same ends.
fn deletion(attributes: &[u8]) -> Option<Vec<u8>> {
    let tuple = nla::find(attributes, ORIGINAL)?;
    let mut body = Attributes::after(&[IPV4, 0, 0, 0]).nest(ORIGINAL, &Attributes::after(tuple));
    if let Some(id) = nla::find(attributes, ID) {
        body = body.put(ID, id);
    }
    Some(body.bytes().to_vec())
}

fn read(attributes: &[u8]) -> Option<Connection> {
    let (from, to) = ends(nla::find(attributes, ORIGINAL)?)?;
    let (answers, answered) = ends(nla::find(attributes, REPLY)?)?;
    Some(Connection {
        from,
        to,
        answers,
        answered,
    })
}

/// Source and destination of a tuple: `CTA_IP_V4_SRC` and `CTA_IP_V4_DST` in `CTA_TUPLE_IP`.
fn ends(tuple: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let ip = nla::find(tuple, 1)?;
    let address = |kind| {
        let octets: [u8; 4] = nla::find(ip, kind)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets))
    };
    Some((address(1)?, address(2)?))
}
