//! A daemon's connection to this pager.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::poller::Interest;
use crate::control::{Filled, FromPager, Inbox, Numbered, frame, send};

/// Frames waiting for a daemon that does not read. More than this and it is cut off; it can connect again.
const MAX_WAITING_FRAMES: usize = 1024;

/// A frame on its way.
#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    fds: Vec<OwnedFd>,
}

/// One connection; never waits.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: OwnedFd,
    pub(super) inbox: Inbox,
    outgoing: VecDeque<Outgoing>,
    /// Whether it has said hello, after which it gets events.
    pub(super) greeted: bool,
    /// What the loop waits for on its socket.
    pub(super) interest: Interest,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            inbox: Inbox::default(),
            outgoing: VecDeque::new(),
            greeted: false,
            interest: Interest::Read,
        }
    }

    /// Reads what is there.
    pub(super) fn read(&mut self) -> io::Result<Filled> {
        match self.inbox.fill(&self.socket, RecvFlags::DONTWAIT) {
            Err(error) if would_block(&error) => Ok(Filled::Some),
            filled => filled,
        }
    }

    pub(super) fn next_request(&mut self) -> io::Result<Option<Numbered>> {
        self.inbox.take()
    }

    /// Queues a message.
    pub(super) fn push(&mut self, message: &FromPager, fds: Vec<OwnedFd>) -> io::Result<()> {
        if self.outgoing.len() >= MAX_WAITING_FRAMES {
            return Err(io::Error::other("the daemon does not read"));
        }
        self.outgoing.push_back(Outgoing {
            bytes: frame(message)?,
            sent: 0,
            fds,
        });
        Ok(())
    }

    /// Sends what goes. True if something is left.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        while let Some(next) = self.outgoing.front_mut() {
            let fds: Vec<BorrowedFd<'_>> = next.fds.iter().map(AsFd::as_fd).collect();
            match send(&self.socket, &next.bytes[next.sent..], &fds) {
                Ok(sent) => {
                    next.sent += sent;
                    next.fds.clear();
                    if next.sent == next.bytes.len() {
                        self.outgoing.pop_front();
                    }
                }
                Err(error) if would_block(&error) => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

pub(super) fn would_block(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code == Some(Errno::AGAIN.raw_os_error()) || code == Some(Errno::INTR.raw_os_error())
}
