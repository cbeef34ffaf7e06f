//! Sockets on which the host connects, as it does where the VMM has vsock in place of ports.
//!
//! One connection at a time is served, and a new one takes the place of the one before: whoever
//! connects now knows better than anybody else that the old one is of no use. A machine that is saved
//! and loaded keeps its listening sockets, while all of its connections end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::sys;

/// Port on which the host's messages are taken.
pub(crate) const AGENT: u32 = 1024;
/// Port on which the program's output is given.
pub(crate) const LOG: u32 = 1025;

/// Connections that may wait. More than one does only when a host gives up and tries again.
const BACKLOG: i32 = 8;

/// Who may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peers {
    /// The host alone. A program of the guest that reaches the socket, over a loopback that root has
    /// loaded, would otherwise be root.
    Host,
    /// Whoever reaches it.
    Anybody,
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    peers: Peers,
}

impl Listener {
    /// Takes a socket that listens.
    ///
    /// # Errors
    /// When the kernel refuses to make it one that does not block.
    pub fn new(socket: OwnedFd, peers: Peers) -> io::Result<Self> {
        use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
        fcntl_setfl(&socket, fcntl_getfl(&socket)? | OFlags::NONBLOCK)?;
        Ok(Self { fd: socket, peers })
    }

    /// Listens on a port of vsock, at every address the machine has: an address changes with the host.
    ///
    /// # Errors
    /// When the port is taken, or the kernel has no vsock.
    pub fn vsock(port: u32, peers: Peers) -> io::Result<Self> {
        let listening = sys::listen_vsock(port, BACKLOG).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("listen on vsock port {port}: {error}"),
            )
        })?;
        Self::new(listening, peers)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The newest of the connections that wait, which does not block; the others are closed. Takes all
    /// that wait, so that an edge comes with the next one.
    pub(crate) fn accept(&self) -> Option<OwnedFd> {
        let mut newest = None;
        loop {
            match sys::accept(self.fd.as_fd()) {
                Ok((connection, from)) => {
                    let is_host = from.is_some_and(|cid| cid == sys::HOST_CID);
                    if self.peers == Peers::Anybody || is_host {
                        newest = Some(connection);
                    }
                }
                // It ended while it waited; another one may wait behind it.
                Err(Errno::INTR | Errno::CONNABORTED | Errno::CONNRESET) => {}
                // Nobody waits, or there are no descriptors left for now.
                Err(_) => return newest,
            }
        }
    }
}
