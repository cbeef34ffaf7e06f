//! The network namespace of a VMM, and the TAP device that it inherits.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::spec::Network;
use super::sys;

/// The device that gives access to TAP devices.
const TUN: &str = "/dev/net/tun";

/// Moves this process into the network that is meant for the VMM. A TAP device that the VMM opens itself is given to
/// `uid`, if that is the user it will be.
pub(super) fn enter(network: &Network, uid: Option<u32>) -> io::Result<()> {
    match network {
        Network::Absent => leave_all(),
        Network::Slot(slot) => {
            enter_namespace(&slot.netns).map_err(|error| {
                told(
                    &format!("enter network namespace {}", slot.netns.display()),
                    error,
                )
            })?;
            let opened = match slot.fd {
                Some(fd) => open_tap(&slot.tap).and_then(|tap| sys::place(tap, fd)),
                None => find_tap(&slot.tap).and_then(|()| give_tap(&slot.tap, uid)),
            };
            opened.map_err(|error| told(&format!("open TAP device {}", slot.tap), error))
        }
    }
}

/// A VMM without a card has no use for the host's network. Where it cannot be taken away it stays, as it does no harm
/// by itself: only some (root, and kernels with namespaces and room for one more) can make a namespace.
pub(super) fn leave_all() -> io::Result<()> {
    match sys::new_network_namespace() {
        Ok(()) | Err(Errno::PERM | Errno::INVAL | Errno::NOSPC) => Ok(()),
        Err(error) => Err(told("make a network namespace", error.into())),
    }
}

fn enter_namespace(path: &Path) -> io::Result<()> {
    let namespace = File::open(path)?;
    match move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)) {
        // The mount point without its mount.
        Err(Errno::INVAL) => Err(io::Error::new(
            io::ErrorKind::NotFound,
            "no network namespace is mounted there",
        )),
        other => Ok(other?),
    }
}

/// Looks for a TAP device in the namespace this process is in. It must exist: who opens a name that does not makes a
/// device that leads nowhere.
fn find_tap(name: &str) -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    netdevice::name_to_index(&socket, name)?;
    Ok(())
}

/// Lets a user without rights open a TAP device of the namespace this process is in.
fn give_tap(name: &str, uid: Option<u32>) -> io::Result<()> {
    match uid {
        None => Ok(()),
        Some(uid) => sys::own_tap(&open_tap(name)?, uid),
    }
}

/// Takes a TAP device of the namespace this process is in.
fn open_tap(name: &str) -> io::Result<OwnedFd> {
    find_tap(name)?;
    let tun = rustix::fs::open(
        TUN,
        OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| told(TUN, error.into()))?;
    sys::attach_tap(&tun, name)?;
    Ok(tun)
}

fn told(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
