//! The ways out of the host: what guests send to the internet leaves by an interface with a default route, and answers
//! come back by it. Which interfaces that are may change while machines run.

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use tokio::task::spawn_blocking;

use super::route::Route;
use super::socket::{Message, messages};
use super::{sys, sysctl};
use crate::Lack;

/// `RTNLGRP_IPV4_ROUTE`: the kernel tells here of every route that comes and goes.
const ROUTES: u32 = 7;
/// `RTM_NEWROUTE`.
const NEW_ROUTE: u16 = 24;
/// Where `struct rtmsg` has the length of the prefix.
const PREFIX_LENGTH: usize = 1;

/// Interfaces with a default route, and the smallest MTU among them.
pub(super) fn uplinks() -> io::Result<(Vec<String>, Option<u16>)> {
    let mut route = Route::open()?;
    let default = Ipv4Net::new(Ipv4Addr::UNSPECIFIED, 0).unwrap_or_default();
    let indexes: Vec<_> = route
        .routes()?
        .into_iter()
        .filter_map(|(to, out)| (to == default).then_some(out).flatten())
        .collect();
    let links: Vec<_> = route
        .links()?
        .into_iter()
        .filter(|link| indexes.contains(&link.index))
        .collect();
    let mtu = links
        .iter()
        .filter_map(|link| u16::try_from(link.mtu).ok())
        .min();
    Ok((links.into_iter().map(|link| link.name).collect(), mtu))
}

/// Lets answers from outside pass: the kernel asks the interface on which a packet came in. Gives what was changed, and
/// what could not be.
pub(super) fn forward(uplinks: &[String]) -> (Vec<String>, Vec<Lack>) {
    let (mut changed, mut lacks) = (Vec::new(), Vec::new());
    for uplink in uplinks {
        let name = format!("ipv4/conf/{uplink}/forwarding");
        match sysctl::set(&name, "1") {
            Ok(None) => {}
            Ok(Some(old)) => {
                let dotted = format!("net.ipv4.conf.{uplink}.forwarding: {old} -> 1");
                tracing::info!(
                    change = dotted,
                    "forwarding was turned on for the instances' network"
                );
                changed.push(dotted);
            }
            Err(error) => lacks.push(Lack {
                what: format!("forwarding cannot be turned on for {uplink} ({error})"),
                remedy: format!("run: sysctl -w net.ipv4.conf.{uplink}.forwarding=1"),
                fatal: false,
            }),
        }
    }
    (changed, lacks)
}

/// Hears of routes that come.
pub(super) struct Listener(Socket);

impl Listener {
    /// Of the calling thread's namespace. What comes from now on is not missed.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.add_membership(ROUTES)?;
        socket.set_non_blocking(true)?;
        Ok(Self(socket))
    }
}

/// Turns forwarding on for ways out that come later. Ends if the kernel cannot be heard any more.
///
/// Guests keep the MTU that they have: TCP is clamped to that of the route, and larger packets are answered with the
/// ICMP error that tells it.
pub(super) async fn keep_forwarding(listener: Listener) {
    let Err(error) = follow(listener).await;
    tracing::warn!(%error, "default routes that come from now on have no effect until the daemon is started again");
}

async fn follow(Listener(socket): Listener) -> io::Result<Infallible> {
    let socket = sys::watched(socket)?;
    loop {
        let mut ready = socket.readable().await?;
        let came = default_route_came(socket.get_ref())?;
        ready.clear_ready();
        if came {
            turn_on().await?;
        }
    }
}

async fn turn_on() -> io::Result<()> {
    let turned_on = spawn_blocking(|| uplinks().map(|(uplinks, _)| forward(&uplinks).1)).await;
    for lack in turned_on.map_err(io::Error::other)?? {
        tracing::warn!(%lack, "guests do not reach the internet by a new default route");
    }
    Ok(())
}

/// Whether a default route may have come since the last look.
fn default_route_came(socket: &Socket) -> io::Result<bool> {
    let mut came = false;
    loop {
        match socket.recv_from_full() {
            Ok((datagram, _)) => came |= messages(&datagram).any(is_default_route),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(came),
            // More came than there was room for: it may have been among it.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => came = true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_default_route((kind, _, message): (u16, u32, Message<'_>)) -> bool {
    kind == NEW_ROUTE && message.body().get(PREFIX_LENGTH) == Some(&0)
}
