//! Where the program's output goes, byte by byte as it comes.
//!
//! What is written to a port is with the VMM, which is there as long as the machine. What is written to
//! a connection is with nobody until the host has read it, and the host may be restarted meanwhile. So a
//! host that connects says how much it has taken for good, and what it has not comes again on the next
//! connection. Without a host the program waits, once its pipe is full.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::listener::Listener;
use crate::poller::{Poller, Token};

/// Output is taken from the program only while less than this is waiting.
const BUFFER: usize = 16 * 1024;

/// A host tells how many bytes more it has taken as a number of 32 bits, the lowest byte first.
const RECEIPT: usize = 4;

/// Where the program's output goes.
#[derive(Debug)]
pub enum Log {
    /// Nowhere.
    Nowhere,
    /// To a stream that takes it for good.
    Stream(OwnedFd),
    /// To hosts that connect, each of which gives receipts.
    Listener(Listener),
}

#[derive(Debug)]
pub(crate) struct LogPort {
    fd: Option<OwnedFd>,
    listener: Option<Listener>,
    /// What is to be written, or was and may have to be again.
    waiting: Vec<u8>,
    written: usize,
    /// The beginning of a receipt.
    receipt: Vec<u8>,
    is_kept: bool,
}

impl LogPort {
    pub(crate) fn new(log: Log) -> Self {
        let (fd, listener) = match log {
            Log::Nowhere => (None, None),
            Log::Stream(fd) => (Some(fd), None),
            Log::Listener(listener) => (None, Some(listener)),
        };
        LogPort {
            is_kept: fd.is_some() || listener.is_some(),
            fd,
            listener,
            waiting: Vec::new(),
            written: 0,
            receipt: Vec::new(),
        }
    }

    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    pub(crate) fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }

    /// Takes the newest connection in place of the one there is. It gets what nobody has taken.
    pub(crate) fn accept(&mut self, poller: &Poller) -> io::Result<()> {
        if let Some(connection) = self.listener.as_ref().and_then(Listener::accept) {
            poller.watch(&connection, Token::Log)?;
            self.begin(Some(connection));
        }
        Ok(())
    }

    fn begin(&mut self, connection: Option<OwnedFd>) {
        self.fd = connection;
        self.written = 0;
        self.receipt.clear();
    }

    /// Bytes that may be added now.
    pub(crate) fn room(&self) -> usize {
        BUFFER.saturating_sub(self.waiting.len())
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        if self.is_kept {
            self.waiting.extend_from_slice(bytes);
        }
    }

    /// A line of the agent's own, in the midst of the program's output.
    pub(crate) fn say(&mut self, line: &str) {
        self.add(format!("coppice: {line}\n").as_bytes());
    }

    /// Nothing is left that somebody would have to take.
    pub(crate) fn is_flushed(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Writes what is taken now.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.listener.is_none() {
            self.write()?;
            self.waiting.drain(..self.written);
            self.written = 0;
            return Ok(());
        }
        // A host that goes, or that takes what it was not given, has no right to what is left.
        if self.read_receipts().and_then(|()| self.write()).is_err() {
            self.begin(None);
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let Some(fd) = &self.fd else { return Ok(()) };
        while self.written < self.waiting.len() {
            match rustix::io::write(fd, &self.waiting[self.written..]) {
                Ok(len) => self.written += len,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn read_receipts(&mut self) -> io::Result<()> {
        let Some(fd) = &self.fd else { return Ok(()) };
        let mut bytes = [0; 16 * RECEIPT];
        loop {
            match rustix::io::read(fd, &mut bytes) {
                Ok(0) => return Err(io::ErrorKind::ConnectionAborted.into()),
                Ok(len) => self.receipt.extend_from_slice(&bytes[..len]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            while let Some(receipt) = self.receipt.first_chunk::<RECEIPT>() {
                let taken = u32::from_le_bytes(*receipt) as usize;
                if taken > self.written {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                self.waiting.drain(..taken);
                self.written -= taken;
                self.receipt.drain(..RECEIPT);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::time::Duration;

    use super::*;
    use crate::listener::Peers;

    struct Host {
        log: LogPort,
        poller: Poller,
        path: std::path::PathBuf,
        _dir: tempfile::TempDir,
    }

    impl Host {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            let socket = UnixListener::bind(&path).unwrap();
            let listener = Listener::new(socket.into(), Peers::Anybody).unwrap();
            Host {
                log: LogPort::new(Log::Listener(listener)),
                poller: Poller::new().unwrap(),
                path,
                _dir: dir,
            }
        }

        fn connect(&mut self) -> UnixStream {
            let stream = UnixStream::connect(&self.path).unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            self.log.accept(&self.poller).unwrap();
            self.log.flush().unwrap();
            stream
        }

        fn take(&mut self, stream: &mut UnixStream, count: u32) {
            stream.write_all(&count.to_le_bytes()).unwrap();
            self.log.flush().unwrap();
        }
    }

    fn read(stream: &mut UnixStream, len: usize) -> String {
        let mut bytes = vec![0; len];
        stream.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn what_a_host_has_not_taken_comes_again_to_the_next_one() {
        let mut host = Host::new();
        host.log.add(b"before any host; ");
        let mut first = host.connect();
        assert_eq!(read(&mut first, 17), "before any host; ");
        host.take(&mut first, 7);
        host.log.add(b"more");
        host.log.flush().unwrap();
        assert_eq!(read(&mut first, 4), "more");
        assert!(!host.log.is_flushed(), "nobody has taken it");
        drop(first);

        let mut second = host.connect();
        assert_eq!(read(&mut second, 14), "any host; more");
        host.take(&mut second, 14);
        assert!(host.log.is_flushed());
    }

    #[test]
    fn a_new_host_takes_the_place_of_one_that_is_silent() {
        let mut host = Host::new();
        host.log.add(b"line");
        let mut silent = host.connect();
        let mut second = host.connect();
        assert_eq!(read(&mut second, 4), "line");
        assert_eq!(read(&mut silent, 4), "line");
        assert_eq!(
            silent.read(&mut [0]).unwrap(),
            0,
            "its connection is closed"
        );
    }

    #[test]
    fn receipts_may_come_in_pieces() {
        let mut host = Host::new();
        host.log.add(b"line");
        let mut stream = host.connect();
        for byte in 4_u32.to_le_bytes() {
            assert!(!host.log.is_flushed());
            stream.write_all(&[byte]).unwrap();
            host.log.flush().unwrap();
        }
        assert!(host.log.is_flushed());
    }

    #[test]
    fn a_host_that_takes_more_than_it_was_given_is_cut_off() {
        let mut host = Host::new();
        host.log.add(b"line");
        let mut stream = host.connect();
        host.take(&mut stream, 5);
        assert_eq!(read(&mut stream, 4), "line");
        // The receipt that was sent and not read makes the end a reset on some kernels.
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
        let mut honest = host.connect();
        assert_eq!(read(&mut honest, 4), "line", "nothing is lost by it");
    }

    #[test]
    fn no_more_is_taken_from_the_program_than_is_kept() {
        let mut host = Host::new();
        host.log.add(&vec![b'x'; BUFFER]);
        let mut stream = host.connect();
        read(&mut stream, BUFFER);
        assert_eq!(host.log.room(), 0);
        host.take(&mut stream, 100);
        assert_eq!(host.log.room(), 100);
    }
}
