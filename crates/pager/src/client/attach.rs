//! Taking a VMM's handshake: who connects, one message, one descriptor.
//!
//! The text is not read here. It goes to the pager, which has fewer rights to lose.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::RecvFlags;
use rustix::process::{Pid, PidfdFlags};

use super::PagerError;
use crate::control::receive;
use crate::handshake::MAX_HANDSHAKE_BYTES;
use crate::sys;

/// What a VMM has handed over.
pub(super) struct Handover {
    pub(super) text: String,
    pub(super) uffd: OwnedFd,
    pub(super) connection: OwnedFd,
    pub(super) process: OwnedFd,
}

/// Waits for a VMM at `listener` and takes what it hands over. `expected` is its process number, if known.
pub(super) fn take(
    listener: &UnixListener,
    expected: Option<u32>,
    limit: Duration,
) -> Result<Handover, PagerError> {
    let deadline = Instant::now() + limit;
    wait_for(listener, deadline, limit, "the VMM's connection")?;
    let (connection, _) = listener
        .accept()
        .map_err(PagerError::io("accept the VMM's connection"))?;
    let process = identify(&connection, expected)?;
    wait_for(&connection, deadline, limit, "the VMM's handshake")?;
    let mut buffer = vec![0; MAX_HANDSHAKE_BYTES + 1];
    let mut fds = VecDeque::new();
    let bytes = receive(&connection, &mut buffer, &mut fds, RecvFlags::DONTWAIT)
        .map_err(PagerError::io("receive the VMM's handshake"))?;
    buffer.truncate(bytes);
    let refused = |what: &str| PagerError::Handshake { what: what.into() };
    let text = String::from_utf8(buffer).map_err(|_| refused("it is no text"))?;
    let uffd = match (fds.pop_front(), fds.is_empty()) {
        (Some(uffd), true) => uffd,
        _ => return Err(refused("one descriptor is wanted")),
    };
    check_userfaultfd(&uffd)?;
    Ok(Handover {
        text,
        uffd,
        connection: connection.into(),
        process,
    })
}

/// A pidfd of the process that connected. It holds the machine's life: it is what is killed.
pub(super) fn identify(
    connection: impl AsFd,
    expected: Option<u32>,
) -> Result<OwnedFd, PagerError> {
    let failed = PagerError::io("identify the VMM");
    let peer = rustix::net::sockopt::socket_peercred(&connection)
        .map_err(|error| PagerError::io("identify the VMM")(error.into()))?;
    let found = peer.pid.as_raw_nonzero().get();
    if expected.is_some_and(|expected| i64::from(expected) != i64::from(found)) {
        return Err(PagerError::Handshake {
            what: format!("it comes from process {found}, which is not the VMM"),
        });
    }
    match sys::peer_pidfd(&connection) {
        Ok(Some(pidfd)) => Ok(pidfd),
        Ok(None) => pidfd_of(peer.pid).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

fn pidfd_of(pid: Pid) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Anything else in its place could block the pager, for example a file of a file system that answers when it likes.
fn check_userfaultfd(fd: &OwnedFd) -> Result<(), PagerError> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let link = std::fs::read_link(path).map_err(PagerError::io("examine the VMM's descriptor"))?;
    if link.as_os_str() != "anon_inode:[userfaultfd]" {
        return Err(PagerError::Handshake {
            what: format!("the descriptor is {}, no userfaultfd", link.display()),
        });
    }
    rustix::io::ioctl_fionbio(fd, true)
        .map_err(|error| PagerError::io("prepare the VMM's descriptor")(error.into()))
}

fn wait_for(
    fd: impl AsFd,
    deadline: Instant,
    limit: Duration,
    what: &'static str,
) -> Result<(), PagerError> {
    if is_ready(fd, deadline.saturating_duration_since(Instant::now()))
        .map_err(PagerError::io("wait for the VMM"))?
    {
        Ok(())
    } else {
        Err(PagerError::Deadline { what, limit })
    }
}

/// Whether there is something to read, or the end of a process, within `limit`.
pub(crate) fn is_ready(fd: impl AsFd, limit: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let fd = fd.as_fd();
        match poll(
            &mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)],
            Some(&timeout),
        ) {
            Err(rustix::io::Errno::INTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}
