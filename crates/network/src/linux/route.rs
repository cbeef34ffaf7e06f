//! Links, addresses, routes and neighbours, by rtnetlink.

mod message;

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::Ipv4Net;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;

pub(super) use self::message::absent;
use self::message::{decode, encode, link_of, route_to};
use super::socket::Netlink;
use crate::Traffic;

/// The links and routes of one namespace.
pub(super) struct Route(Netlink);

/// An interface.
#[derive(Debug, Clone, Default)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) alias: String,
    pub(super) mtu: u32,
    /// Something is attached: a cable, a peer, a VMM.
    pub(super) carrier: bool,
    /// As the interface counts: `rx` is what came in through it.
    pub(super) counted: Traffic,
}

/// One end of a veth pair.
pub(super) struct End<'a> {
    pub(super) name: &'a str,
    pub(super) mac: [u8; 6],
}

impl Route {
    /// Of the calling thread's namespace.
    pub(super) fn open() -> io::Result<Self> {
        Netlink::open(NETLINK_ROUTE).map(Self)
    }

    /// All interfaces.
    pub(super) fn links(&mut self) -> io::Result<Vec<Link>> {
        let mut links = Vec::new();
        self.list(
            RouteNetlinkMessage::GetLink(LinkMessage::default()),
            |answer| {
                if let RouteNetlinkMessage::NewLink(message) = answer {
                    links.push(link_of(message));
                }
            },
        )?;
        links.dedup_by_key(|link| link.index);
        Ok(links)
    }

    /// One interface, if it is there.
    pub(super) fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut request = LinkMessage::default();
        request
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        let (kind, body) = encode(RouteNetlinkMessage::GetLink(request));
        let mut found = None;
        let asked = self.0.get(kind, &body, |message| {
            if let Some(RouteNetlinkMessage::NewLink(message)) = decode(message.raw) {
                found = Some(link_of(message));
            }
        });
        match asked {
            Ok(()) => Ok(found),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Index of an interface that has to be there.
    pub(super) fn index(&mut self, name: &str) -> io::Result<u32> {
        self.link(name)?
            .map(|link| link.index)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }

    /// Makes a veth pair with its second end in another namespace.
    pub(super) fn add_veth(
        &mut self,
        here: &End<'_>,
        there: &End<'_>,
        to: BorrowedFd<'_>,
        mtu: u16,
    ) -> io::Result<()> {
        let end = |end: &End<'_>| {
            let mut message = LinkMessage::default();
            message
                .attributes
                .push(LinkAttribute::IfName(end.name.to_owned()));
            message
                .attributes
                .push(LinkAttribute::Address(end.mac.to_vec()));
            message.attributes.push(LinkAttribute::Mtu(mtu.into()));
            message
        };
        let mut peer = end(there);
        peer.attributes.push(LinkAttribute::NetNsFd(to.as_raw_fd()));
        let mut message = end(here);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.ask(
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// Removes an interface; it is no error if it is not there.
    pub(super) fn remove_link(&mut self, name: &str) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        absent(self.ask(RouteNetlinkMessage::DelLink(message), 0))
    }

    /// Changes attributes of an interface and brings it up.
    pub(super) fn bring_up(
        &mut self,
        index: u32,
        mac: Option<[u8; 6]>,
        mtu: Option<u16>,
    ) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message
            .attributes
            .extend(mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
        message
            .attributes
            .extend(mtu.map(|mtu| LinkAttribute::Mtu(mtu.into())));
        self.ask(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Writes the note that an interface carries.
    pub(super) fn set_alias(&mut self, index: u32, alias: &str) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message
            .attributes
            .push(LinkAttribute::IfAlias(alias.to_owned()));
        self.ask(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Gives an interface an address, without a route to the rest of its block.
    pub(super) fn add_address(
        &mut self,
        index: u32,
        address: Ipv4Addr,
        prefix: u8,
    ) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = prefix;
        message.header.index = index;
        message
            .attributes
            .push(AddressAttribute::Local(address.into()));
        message
            .attributes
            .push(AddressAttribute::Address(address.into()));
        self.ask(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    /// All IPv4 addresses with their prefix and interface.
    pub(super) fn addresses(&mut self) -> io::Result<Vec<(u32, Ipv4Net)>> {
        let mut request = AddressMessage::default();
        request.header.family = AddressFamily::Inet;
        let mut list = Vec::new();
        self.list(RouteNetlinkMessage::GetAddress(request), |answer| {
            let RouteNetlinkMessage::NewAddress(message) = answer else {
                return;
            };
            let local = message
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    AddressAttribute::Local(std::net::IpAddr::V4(address)) => Some(*address),
                    _ => None,
                });
            if let Some(net) =
                local.and_then(|local| Ipv4Net::new(local, message.header.prefix_len).ok())
            {
                list.push((message.header.index, net));
            }
        })?;
        Ok(list)
    }

    /// All IPv4 routes but the local ones: destination and outgoing interface.
    pub(super) fn routes(&mut self) -> io::Result<Vec<(Ipv4Net, Option<u32>)>> {
        let mut request = RouteMessage::default();
        request.header.address_family = AddressFamily::Inet;
        let mut list = Vec::new();
        self.list(RouteNetlinkMessage::GetRoute(request), |answer| {
            let RouteNetlinkMessage::NewRoute(message) = answer else {
                return;
            };
            if message.header.table == libc::RT_TABLE_LOCAL {
                return;
            }
            let (mut to, mut out) = (Ipv4Addr::UNSPECIFIED, None);
            for attribute in &message.attributes {
                match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet(address)) => to = *address,
                    RouteAttribute::Oif(index) => out = Some(*index),
                    _ => {}
                }
            }
            if let Ok(net) = Ipv4Net::new(to, message.header.destination_prefix_length) {
                list.push((net, out));
            }
        })?;
        Ok(list)
    }

    /// Adds a route to one address over an interface, from a source address of ours.
    pub(super) fn add_host_route(
        &mut self,
        to: Ipv4Addr,
        index: u32,
        source: Ipv4Addr,
    ) -> io::Result<()> {
        let mut message = route_to(Ipv4Net::from(to), RouteType::Unicast, RouteScope::Link);
        message.attributes.push(RouteAttribute::Oif(index));
        message
            .attributes
            .push(RouteAttribute::PrefSource(RouteAddress::Inet(source)));
        self.ask(
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    /// Adds a default route over an interface to a gateway that is known only as a neighbour.
    pub(super) fn add_default_route(&mut self, index: u32, gateway: Ipv4Addr) -> io::Result<()> {
        let mut message = route_to(Ipv4Net::default(), RouteType::Unicast, RouteScope::Universe);
        message.header.flags = netlink_packet_route::route::RouteFlags::Onlink;
        message.attributes.push(RouteAttribute::Oif(index));
        message
            .attributes
            .push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
        self.ask(
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    /// Claims a block: everything in it that has no better route is unreachable. Fails if somebody has this route.
    pub(super) fn claim(&mut self, block: Ipv4Net) -> io::Result<()> {
        let message = route_to(block, RouteType::Unreachable, RouteScope::Universe);
        self.ask(
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// Ends a claim; it is no error if there is none.
    pub(super) fn unclaim(&mut self, block: Ipv4Net) -> io::Result<()> {
        let message = route_to(block, RouteType::Unreachable, RouteScope::Universe);
        absent(self.ask(RouteNetlinkMessage::DelRoute(message), 0))
    }

    /// Adds a neighbour that is never asked for and never forgotten.
    pub(super) fn add_neighbour(
        &mut self,
        index: u32,
        address: Ipv4Addr,
        mac: [u8; 6],
    ) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = index;
        message.header.state = NeighbourState::Permanent;
        message.header.kind = RouteType::Unicast;
        message
            .attributes
            .push(NeighbourAttribute::Destination(NeighbourAddress::Inet(
                address,
            )));
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        self.ask(
            RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    /// Removes the neighbours that were learnt.
    pub(super) fn forget_neighbours(&mut self) -> io::Result<()> {
        let mut request = NeighbourMessage::default();
        request.header.family = AddressFamily::Inet;
        let mut learnt = Vec::new();
        self.list(RouteNetlinkMessage::GetNeighbour(request), |answer| {
            if let RouteNetlinkMessage::NewNeighbour(message) = answer
                && !matches!(
                    message.header.state,
                    NeighbourState::Permanent | NeighbourState::Noarp
                )
            {
                learnt.push(message);
            }
        })?;
        for message in learnt {
            absent(self.ask(RouteNetlinkMessage::DelNeighbour(message), 0))?;
        }
        Ok(())
    }

    /// Sends a request that is not one of the above.
    pub(super) fn ask_raw(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.0.ask(kind, flags, body)
    }

    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let (kind, body) = encode(message);
        self.0.ask(kind, flags, &body)
    }

    fn list(
        &mut self,
        request: RouteNetlinkMessage,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        let (kind, body) = encode(request);
        self.0.dump(kind, &body, |message| {
            // What the crate cannot read is none of the things we make.
            if let Some(answer) = decode(message.raw) {
                each(answer);
            }
        })
    }
}
