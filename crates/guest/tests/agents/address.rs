//! Where an agent takes connections.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use agent::{Listener, Peers};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket};

/// Address of vsock that leads back to the machine itself.
const LOCAL: u32 = nix::libc::VMADDR_CID_LOCAL;

/// Ports from here on are tried; below it are those that mean something.
const FIRST_PORT: u32 = 20_000;

pub(crate) enum Address {
    Unix {
        path: PathBuf,
        _directory: tempfile::TempDir,
    },
    Vsock {
        port: u32,
    },
}

/// A path.
pub(crate) fn unix(peers: Peers) -> (Listener, Address) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent");
    let socket = UnixListener::bind(&path).unwrap();
    let listener = Listener::new(socket.into(), peers).unwrap();
    let address = Address::Unix {
        path,
        _directory: directory,
    };
    (listener, address)
}

/// A port of vsock, if this kernel can connect to its own.
pub(crate) fn vsock(peers: Peers) -> Option<(Listener, Address)> {
    // Tests run beside each other, in one process or in many.
    let first = FIRST_PORT + std::process::id() % 10_000;
    let bound = (first..first + 10_000)
        .map(|port| (port, Listener::vsock(port, peers)))
        .find(|(_, bound)| {
            let error = bound.as_ref().err().map(io::Error::kind);
            error != Some(io::ErrorKind::AddrInUse)
        });
    let why = match bound {
        Some((port, Ok(listener))) => match dial(port) {
            Ok(_) => return Some((listener, Address::Vsock { port })),
            Err(error) => format!("to itself ({error}); load the module vsock_loopback"),
        },
        Some((_, Err(error))) => format!("at all ({error})"),
        None => "with a free port".to_owned(),
    };
    println!("skipped: this kernel has no vsock {why}");
    None
}

impl Address {
    /// Connects, unless the agent has ended.
    pub(crate) fn connect(&self) -> io::Result<UnixStream> {
        match self {
            Address::Unix { path, .. } => UnixStream::connect(path),
            Address::Vsock { port } => Ok(dial(*port)?),
        }
    }
}

/// A stream of vsock in the clothes of another one: reading and writing are the same.
fn dial(port: u32) -> nix::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &VsockAddr::new(LOCAL, port))?;
    Ok(socket.into())
}
