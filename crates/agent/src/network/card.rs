//! The network card: its address, its route, its state.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use protocol::GuestNetwork;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::netlink::{NLM_F_CREATE, NLM_F_REPLACE, Netlink, Request};

/// Name the kernel gives the first card.
pub(super) const CARD: &str = "eth0";
const LOOPBACK: &str = "lo";

/// A card appears a moment after its driver was loaded.
const APPEAR: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(2);

/// linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;
const AF_INET: u8 = 2;
/// linux/if.h
const IFF_UP: u32 = 1;

/// Brings the loopback interface up.
pub(crate) fn loopback_up() -> io::Result<()> {
    let up = up(index_of(LOOPBACK)?);
    Netlink::open(None)?.run(up)
}

/// Gives the card its addresses, in place of those it had before.
pub(super) fn configure(network: &GuestNetwork, before: Option<&GuestNetwork>) -> io::Result<()> {
    let card = wait_for_card()?;
    // Nothing routes IPv6 yet, and an interface that has it sends and waits for a while after each
    // change. A kernel without IPv6 has no such file.
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{CARD}/disable_ipv6"), "1");
    let netlink = Netlink::open(None)?;
    if let Some(before) = before.filter(|before| before.address != network.address) {
        netlink.run(address(RTM_DELADDR, 0, card, before.address, before.prefix))?;
    }
    let replace = NLM_F_CREATE | NLM_F_REPLACE;
    netlink.run(address(
        RTM_NEWADDR,
        replace,
        card,
        network.address,
        network.prefix,
    ))?;
    netlink.run(up(card).with(IFLA_MTU, &u32::from(network.mtu).to_ne_bytes()))?;
    // `struct rtmsg`; no destination is the default route.
    let body = [
        AF_INET,
        0,
        0,
        0,
        RT_TABLE_MAIN,
        RTPROT_STATIC,
        0,
        RTN_UNICAST,
        0,
        0,
        0,
        0,
    ];
    netlink.run(
        Request::new(RTM_NEWROUTE, replace, &body)
            .with(RTA_OIF, &card.to_ne_bytes())
            .with(RTA_GATEWAY, &network.gateway.octets()),
    )
}

fn up(index: u32) -> Request {
    // `struct ifinfomsg`: family, padding, kind, index, flags, flags that change.
    let mut body = vec![0; 4];
    for number in [index, IFF_UP, IFF_UP] {
        body.extend(number.to_ne_bytes());
    }
    Request::new(RTM_NEWLINK, 0, &body)
}

fn address(kind: u16, flags: u16, index: u32, address: Ipv4Addr, prefix: u8) -> Request {
    // `struct ifaddrmsg`: family, prefix, flags, scope, index.
    let mut body = vec![AF_INET, prefix, 0, 0];
    body.extend(index.to_ne_bytes());
    Request::new(kind, flags, &body)
        .with(IFA_LOCAL, &address.octets())
        .with(IFA_ADDRESS, &address.octets())
}

fn wait_for_card() -> io::Result<u32> {
    let begun = Instant::now();
    let path = Path::new("/sys/class/net").join(CARD);
    while !path.exists() {
        if begun.elapsed() > APPEAR {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the machine has no network card",
            ));
        }
        std::thread::sleep(LOOK);
    }
    index_of(CARD)
}

fn index_of(name: &str) -> io::Result<u32> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    Ok(name_to_index(&socket, name)?)
}
