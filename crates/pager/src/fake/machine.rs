//! A machine for pagers that are a fake: it hands a socket over in place of memory.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::control::send;

/// What [`super::FakePagers`] serve.
#[derive(Debug)]
pub struct FakeMachine {
    connection: UnixStream,
    faults: UnixStream,
    /// Whether its first fault has been answered.
    is_served: bool,
}

impl FakeMachine {
    /// Connects to whoever listens at `socket`, and hands over.
    pub fn hand_over(socket: &Path) -> io::Result<Self> {
        let connection = UnixStream::connect(socket)?;
        let (faults, theirs) = UnixStream::pair()?;
        send(&connection, b"[]", &[theirs.as_fd()])?;
        Ok(Self {
            connection,
            faults,
            is_served: false,
        })
    }

    /// Waits for a page; `false` if it will never come.
    pub fn touch(&mut self, page: u64) -> bool {
        let mut answer = [0];
        if !self.is_served {
            self.is_served = self.faults.read_exact(&mut answer).is_ok();
        }
        self.is_served
            && self.faults.write_all(&page.to_le_bytes()).is_ok()
            && self.faults.read_exact(&mut answer).is_ok()
    }

    /// Ends, as a process does.
    pub fn end(&mut self) {
        let _ = self.faults.shutdown(Shutdown::Both);
        let _ = self.connection.shutdown(Shutdown::Both);
    }

    /// Waits until it has ended or was ended.
    pub fn has_ended(&mut self) {
        let _ = self.connection.read(&mut [0]);
    }
}
