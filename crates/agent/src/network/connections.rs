//! TCP connections that a new machine has from the one it was made of.
//!
//! The other end talks to that machine, or to none any more: data would never be acknowledged, and
//! a program would wait for it for hours. So they are aborted, which the programs see as a
//! connection that was reset. Listening sockets stay, as do connections within the machine.

use std::io;
use std::net::{IpAddr, Ipv6Addr};

use rustix::io::Errno;
use rustix::net::netlink;

use super::netlink::{Netlink, Request};

/// linux/sock_diag.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;

/// All states of net/tcp_states.h but listening (10), closed (7) and waiting after the end (6), as
/// bits of their numbers.
const CONNECTED: u32 = 0b1_1011_0011_1110;

/// Length of `struct inet_diag_sockid`, and its place in `struct inet_diag_msg`.
const SOCKET: usize = 48;
const SOCKET_AT: usize = 4;

/// A socket as the kernel names it: `struct inet_diag_sockid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Socket {
    family: u8,
    id: [u8; SOCKET],
}

/// Aborts all TCP connections with the world outside. A kernel that cannot do that leaves them to
/// their own time limits.
pub(super) fn abort_all() -> io::Result<()> {
    // Neither the part of the kernel, nor that for TCP, need be there.
    let Some(netlink) = unless(
        &[Errno::PROTONOSUPPORT],
        Netlink::open(Some(netlink::SOCK_DIAG)),
    )?
    else {
        return Ok(());
    };
    for socket in unless(&[Errno::NOENT], outside(&netlink))?.unwrap_or_default() {
        let body = request(socket.family, &socket.id);
        // It may have ended by itself; what only waits after the end, or is all that a kernel can
        // look at, cannot be aborted.
        unless(
            &[Errno::NOENT, Errno::OPNOTSUPP],
            netlink.run(Request::new(SOCK_DESTROY, 0, &body)),
        )?;
    }
    Ok(())
}

/// Nothing where the result is one of these errors.
fn unless<T>(errors: &[Errno], result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if errors
                .iter()
                .any(|errno| error.raw_os_error() == Some(errno.raw_os_error())) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Looks at all connections as [`abort_all`] does.
pub(super) fn rehearse() {
    // What it says is for the time when it counts.
    let _ = Netlink::open(Some(netlink::SOCK_DIAG)).and_then(|netlink| outside(&netlink));
}

/// All TCP connections with the world outside.
fn outside(netlink: &Netlink) -> io::Result<Vec<Socket>> {
    let mut found = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let body = request(family, &[0; SOCKET]);
        netlink.list(Request::new(SOCK_DIAG_BY_FAMILY, 0, &body), |_, message| {
            found.extend(read(message).filter(|socket| !socket.is_inside()));
        })?;
    }
    Ok(found)
}

/// `struct inet_diag_req_v2`: family, protocol, extensions, padding, states, socket.
fn request(family: u8, id: &[u8; SOCKET]) -> Vec<u8> {
    let mut body = vec![family, IPPROTO_TCP, 0, 0];
    body.extend(CONNECTED.to_ne_bytes());
    body.extend(id);
    body
}

/// The socket of a `struct inet_diag_msg`.
fn read(message: &[u8]) -> Option<Socket> {
    let id = message.get(SOCKET_AT..SOCKET_AT + SOCKET)?;
    Some(Socket {
        family: *message.first()?,
        id: id.try_into().ok()?,
    })
}

impl Socket {
    /// Both ends are in this machine.
    fn is_inside(&self) -> bool {
        // Behind the two ports.
        let (own, other) = (self.address(4), self.address(20));
        own.is_loopback() || other.is_loopback() || own == other
    }

    fn address(&self, at: usize) -> IpAddr {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.id[at..at + 16]);
        match self.family {
            AF_INET => IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]),
            _ => Ipv6Addr::from(bytes).to_canonical(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn message(family: u8, own: &[u8], other: &[u8]) -> Vec<u8> {
        let mut message = vec![family, 1, 0, 0, 0x1f, 0x90, 0x80, 0];
        for address in [own, other] {
            message.extend(address);
            message.resize(message.len() + 16 - address.len(), 0);
        }
        message.resize(72, 0);
        message
    }

    #[test]
    fn connections_within_the_machine_are_told_from_others() {
        let inside = |family, own: &[u8], other: &[u8]| {
            read(&message(family, own, other)).unwrap().is_inside()
        };
        let mapped = |last: [u8; 4]| std::net::Ipv4Addr::from(last).to_ipv6_mapped().octets();
        assert!(inside(AF_INET, &[127, 0, 0, 1], &[127, 0, 0, 1]));
        assert!(inside(AF_INET, &[10, 0, 0, 2], &[10, 0, 0, 2]));
        assert!(!inside(AF_INET, &[10, 0, 0, 2], &[10, 0, 0, 1]));
        assert!(inside(
            AF_INET6,
            &Ipv6Addr::LOCALHOST.octets(),
            &Ipv6Addr::LOCALHOST.octets()
        ));
        assert!(inside(
            AF_INET6,
            &mapped([127, 0, 0, 1]),
            &mapped([127, 0, 0, 1])
        ));
        assert!(!inside(
            AF_INET6,
            &mapped([10, 0, 0, 2]),
            &mapped([10, 0, 0, 1])
        ));
        assert_eq!(read(&[2; 20]), None);
    }

    #[test]
    fn connections_are_listed_and_listeners_are_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port().to_be_bytes();
        let netlink = Netlink::open(Some(netlink::SOCK_DIAG)).unwrap();
        let body = request(AF_INET, &[0; SOCKET]);
        let mut mine = Vec::new();
        netlink
            .list(Request::new(SOCK_DIAG_BY_FAMILY, 0, &body), |_, message| {
                mine.extend(read(message).filter(|it| it.id[..2] == port || it.id[2..4] == port));
            })
            .unwrap();
        assert_eq!(mine.len(), 2, "both ends and not the listener");
        assert!(mine.iter().all(Socket::is_inside));
    }
}
