//! Messages of rtnetlink.

use std::io;

use ipnet::Ipv4Net;
use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::super::socket::HEADER;
use super::Link;
use crate::Traffic;

/// Takes an error that says "it is not there" for success.
pub(crate) fn absent(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENODEV | libc::ENOENT | libc::ESRCH)
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

pub(super) fn route_to(block: Ipv4Net, kind: RouteType, scope: RouteScope) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = block.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = scope;
    message.header.kind = kind;
    if block.prefix_len() > 0 {
        let destination = RouteAddress::Inet(block.network());
        message
            .attributes
            .push(RouteAttribute::Destination(destination));
    }
    message
}

pub(super) fn link_of(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = alias,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Stats64(stats) => {
                link.counted = Traffic {
                    rx_bytes: stats.rx_bytes,
                    tx_bytes: stats.tx_bytes,
                }
            }
            _ => {}
        }
    }
    link
}

pub(super) fn encode(message: RouteNetlinkMessage) -> (u16, Vec<u8>) {
    let mut message = NetlinkMessage::new(
        NetlinkHeader::default(),
        NetlinkPayload::InnerMessage(message),
    );
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    (message.header.message_type, bytes.split_off(HEADER))
}

pub(super) fn decode(raw: &[u8]) -> Option<RouteNetlinkMessage> {
    match NetlinkMessage::deserialize(raw).ok()?.payload {
        NetlinkPayload::InnerMessage(message) => Some(message),
        _ => None,
    }
}
