//! A stand-in for a VMM's memory: reported, handed over and used as Firecracker does it, without a guest.

mod machine;
mod pagers;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::control::send;
use crate::sys::guest::GuestRam;
pub use machine::FakeMachine;
pub use pagers::{FakePagers, TOUCHED};

/// Memory of this process that a pager fills. Threads that touch what is missing wait for it.
#[derive(Debug)]
pub struct Guest {
    ram: GuestRam,
    page_bytes: usize,
    connection: Option<UnixStream>,
}

impl Guest {
    /// Maps `ram_bytes` and has missing pages reported. Fails where userfaultfd may not be used.
    pub fn new(ram_bytes: usize) -> io::Result<Self> {
        Self::with_pages(ram_bytes, 4096)
    }

    /// As [`Guest::new`] on pages of 2 MiB, as many of which must be reserved and free.
    pub fn with_large_pages(ram_bytes: usize) -> io::Result<Self> {
        Self::with_pages(ram_bytes, 2 << 20)
    }

    fn with_pages(ram_bytes: usize, page_bytes: usize) -> io::Result<Self> {
        Ok(Self {
            ram: GuestRam::new(ram_bytes, page_bytes)?,
            page_bytes,
            connection: None,
        })
    }

    /// The message that Firecracker would send.
    #[must_use]
    pub fn handshake(&self) -> String {
        serde_json::json!([{
            "base_host_virt_addr": self.ram.address(),
            "size": self.ram.len(),
            "offset": 0,
            "page_size": self.page_bytes,
            "page_size_kib": self.page_bytes,
        }])
        .to_string()
    }

    /// Hands the memory over to whoever listens at `socket`. The connection stays open until the process ends.
    pub fn hand_over(&mut self, socket: &Path) -> io::Result<()> {
        let text = self.handshake();
        let uffd = self.uffd().try_clone_to_owned()?;
        self.say(socket, &text, &[uffd.as_fd()])
    }

    /// As [`Guest::hand_over`] with any message and descriptors.
    pub fn say(&mut self, socket: &Path, text: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let stream = UnixStream::connect(socket)?;
        send(&stream, text.as_bytes(), fds)?;
        self.connection = Some(stream);
        Ok(())
    }

    /// Connects and says nothing.
    pub fn connect(&mut self, socket: &Path) -> io::Result<()> {
        self.connection = Some(UnixStream::connect(socket)?);
        Ok(())
    }

    /// Has more memory reported than was handed over, and touches it.
    pub fn stray(&self) -> io::Result<()> {
        self.ram.stray()
    }

    /// Closes the descriptor that was handed over.
    pub fn close_uffd(&mut self) -> io::Result<()> {
        self.ram.close_uffd()
    }

    /// Says something after the handshake, as no VMM does.
    pub fn say_more(&mut self) -> io::Result<()> {
        let connection = self
            .connection
            .as_ref()
            .ok_or(io::ErrorKind::NotConnected)?;
        send(connection, b"x", &[]).map(drop)
    }

    /// Ends the connection and lives on, as no VMM does.
    pub fn hang_up(&mut self) {
        self.connection = None;
    }

    /// The descriptor that is handed over.
    #[must_use]
    pub fn uffd(&self) -> BorrowedFd<'_> {
        self.ram.uffd()
    }

    /// Size in bytes.
    #[must_use]
    pub fn ram_bytes(&self) -> usize {
        self.ram.len()
    }

    /// Reads, and waits for what is missing.
    pub fn read(&self, offset: usize, buffer: &mut [u8]) {
        self.ram.read(offset, buffer);
    }

    /// Writes, and waits for what is missing.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        self.ram.write(offset, bytes);
    }

    /// Gives memory back, as a balloon does: it is zero afterwards.
    pub fn discard(&self, offset: usize, len: usize) -> io::Result<()> {
        self.ram.discard(offset, len)
    }

    /// Unmaps memory, as no VMM should.
    pub fn unmap(&self, offset: usize, len: usize) -> io::Result<()> {
        self.ram.unmap(offset, len)
    }

    /// Fills missing memory without a pager, for comparison.
    pub fn fill_by_hand(&self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        self.ram.fill_by_hand(offset, bytes)
    }
}
