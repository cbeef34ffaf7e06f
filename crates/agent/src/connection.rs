//! The channel to the host: frames in, frames out, neither ever blocking.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use protocol::{Decoder, FrameError, MAX_CHUNK, ToGuest, ToHost, encode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Output above which no session may add to it and no request is read.
const OUT_HIGH: usize = 128 * 1024;

/// Bytes read at a time.
const READ: usize = 16 * 1024;

/// What a channel does when its host goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It stays, and the next host is on the same one.
    Port,
    /// It is over.
    Socket,
}

#[derive(Debug)]
pub(crate) struct Connection {
    /// None as long as no host has connected.
    fd: Option<OwnedFd>,
    kind: Kind,
    decoder: Decoder<ToGuest>,
    out: Vec<u8>,
    /// How much of `out` is written.
    written: usize,
    readable: bool,
}

/// What a look at the channel gave.
pub(crate) enum Received {
    /// Messages, in order. More may be waiting.
    Messages(Vec<Result<ToGuest, FrameError>>),
    /// Nothing now.
    Nothing,
    /// The kernel says that the host is not there.
    HungUp,
}

impl Connection {
    /// Takes a descriptor that does not block.
    pub(crate) fn new(fd: Option<OwnedFd>, kind: Kind) -> Self {
        Connection {
            fd,
            kind,
            decoder: Decoder::default(),
            out: Vec::new(),
            written: 0,
            readable: true,
        }
    }

    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Goes on with another connection, or with none.
    pub(crate) fn replace(&mut self, fd: Option<OwnedFd>) {
        *self = Self::new(fd, self.kind);
    }

    /// An edge was seen.
    pub(crate) fn woken(&mut self) {
        self.readable = true;
    }

    pub(crate) fn receive(&mut self) -> io::Result<Received> {
        if !self.readable || self.is_full() {
            return Ok(Received::Nothing);
        }
        let Some(fd) = &self.fd else {
            return Ok(Received::Nothing);
        };
        let mut buffer = [0; READ];
        match rustix::io::read(fd, &mut buffer) {
            Ok(0) => {
                self.readable = false;
                Ok(Received::HungUp)
            }
            Ok(len) => {
                let mut input = &buffer[..len];
                let mut messages = Vec::new();
                while let Some(message) = self.decoder.decode(&mut input) {
                    messages.push(message);
                }
                Ok(Received::Messages(messages))
            }
            Err(Errno::AGAIN) => {
                self.readable = false;
                Ok(Received::Nothing)
            }
            Err(Errno::INTR) => Ok(Received::Messages(Vec::new())),
            Err(error) if self.is_over(error) => {
                self.readable = false;
                Ok(Received::HungUp)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether an error says that the other end of a socket has gone. All connections of vsock end so
    /// when the machine is saved and loaded.
    fn is_over(&self, error: Errno) -> bool {
        let over = [
            Errno::CONNRESET,
            Errno::NOTCONN,
            Errno::PIPE,
            Errno::TIMEDOUT,
        ];
        self.kind == Kind::Socket && over.contains(&error)
    }

    /// Queues a message. One that cannot be encoded cannot be told to the host either, and is
    /// dropped: only texts of the guest can be that long, and those are cut where they are made.
    pub(crate) fn send(&mut self, message: &ToHost) {
        let _ = encode(message, &mut self.out);
    }

    /// Drops what the host before has not read. The delimiter ends the frame that may be half
    /// written.
    pub(crate) fn restart(&mut self) {
        self.out.clear();
        self.written = 0;
        self.out.push(0);
    }

    /// Forgets both directions: the host has gone.
    pub(crate) fn hang_up(&mut self) {
        self.restart();
        self.decoder.reset();
    }

    /// Whether the kernel says that the host is not there.
    pub(crate) fn is_hung_up(&self) -> bool {
        let Some(fd) = &self.fd else { return true };
        let mut watched = [PollFd::new(fd, PollFlags::empty())];
        // An error is none of the host's doing.
        poll(&mut watched, Some(&Timespec::default())).is_ok()
            && watched[0].revents().contains(PollFlags::HUP)
    }

    /// No more should be queued before [`Connection::flush`] made progress.
    pub(crate) fn is_full(&self) -> bool {
        self.out.len() - self.written >= OUT_HIGH
    }

    pub(crate) fn is_flushed(&self) -> bool {
        self.out.len() == self.written
    }

    /// Writes what the host takes now.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.written < self.out.len() {
            let Some(fd) = &self.fd else { break };
            match rustix::io::write(fd, &self.out[self.written..]) {
                Ok(len) => self.written += len,
                Err(Errno::INTR) => {}
                // What was said is for nobody, and must not keep the end from being read.
                Err(error) if self.is_over(error) => {
                    self.readable = true;
                    break;
                }
                // Without a host there is nobody to write to; the next one begins with a restart.
                Err(Errno::AGAIN | Errno::PIPE) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        self.out.clear();
        self.out.shrink_to(MAX_CHUNK * 2);
        self.written = 0;
        Ok(())
    }
}
