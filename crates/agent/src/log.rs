//! The port that carries the program's output to the host, byte by byte as it comes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

/// Output is taken from the program only while less than this is waiting.
const BUFFER: usize = 16 * 1024;

#[derive(Debug)]
pub(crate) struct LogPort {
    fd: Option<OwnedFd>,
    waiting: Vec<u8>,
    written: usize,
}

impl LogPort {
    /// Without a port, output is dropped.
    pub(crate) fn new(fd: Option<OwnedFd>) -> Self {
        LogPort {
            fd,
            waiting: Vec::new(),
            written: 0,
        }
    }

    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Bytes that may be added now.
    pub(crate) fn room(&self) -> usize {
        BUFFER.saturating_sub(self.waiting.len() - self.written)
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        if self.fd.is_some() {
            self.waiting.extend_from_slice(bytes);
        }
    }

    /// A line of the agent's own, in the midst of the program's output.
    pub(crate) fn say(&mut self, line: &str) {
        self.add(format!("coppice: {line}\n").as_bytes());
    }

    pub(crate) fn is_flushed(&self) -> bool {
        self.waiting.len() == self.written
    }

    /// Writes what the port takes now.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let Some(fd) = &self.fd else { return Ok(()) };
        while self.written < self.waiting.len() {
            match rustix::io::write(fd, &self.waiting[self.written..]) {
                Ok(len) => self.written += len,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        self.waiting.clear();
        self.written = 0;
        Ok(())
    }
}
