//! Netlink sockets: requests as bytes, answers one by one.

use std::io;
use std::time::Duration;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt::{Timeout, set_socket_send_buffer_size_force, set_socket_timeout};

/// Longest wait for an answer of the kernel.
const DEADLINE: Duration = Duration::from_secs(10);
/// Room for the largest request, the first transaction after a restart.
const SEND_BUFFER: usize = 4 << 20;
/// Length of `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;
/// `NLMSG_ERROR`: an error, or with code zero an acknowledgement.
const ERROR: u16 = 2;
/// `NLMSG_DONE`: end of a dump.
const DONE: u16 = 3;
/// `NLM_F_DUMP_INTR`: what was listed changed meanwhile.
const INTERRUPTED: u16 = 16;
/// How often a list is read again when it changed meanwhile.
const ATTEMPTS: usize = 10;

/// A socket to one part of the kernel. It belongs to the namespace of the thread that made it.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// A message that the kernel sent.
pub(super) struct Message<'a> {
    /// All of it.
    pub(super) raw: &'a [u8],
    flags: u16,
}

impl Message<'_> {
    /// What follows the header.
    pub(super) fn body(&self) -> &[u8] {
        self.raw.get(HEADER..).unwrap_or_default()
    }
}

impl Netlink {
    /// Opens a socket of `protocol`.
    pub(super) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(DEADLINE))?;
        // Without the right to do so the ordinary size remains, which is enough but after a restart.
        let _ = set_socket_send_buffer_size_force(&socket, SEND_BUFFER);
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Number for the next message of a request.
    pub(super) fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends one request and waits until it is acknowledged.
    pub(super) fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        let sequence = self.next();
        let request = message(kind, flags | NLM_F_REQUEST | NLM_F_ACK, sequence, body);
        self.exchange(&request, sequence, sequence, |_| ())
    }

    /// Asks for one object.
    pub(super) fn get(
        &mut self,
        kind: u16,
        body: &[u8],
        mut each: impl FnMut(&Message<'_>),
    ) -> io::Result<()> {
        let sequence = self.next();
        let request = message(kind, NLM_F_REQUEST | NLM_F_ACK, sequence, body);
        self.exchange(&request, sequence, sequence, |message| each(message))
    }

    /// Lists objects. `each` may see some of them twice.
    pub(super) fn dump(
        &mut self,
        kind: u16,
        body: &[u8],
        mut each: impl FnMut(&Message<'_>),
    ) -> io::Result<()> {
        for _ in 0..ATTEMPTS {
            let sequence = self.next();
            let request = message(kind, NLM_F_REQUEST | NLM_F_DUMP, sequence, body);
            let mut whole = true;
            self.exchange(&request, sequence, sequence, |message| {
                whole &= message.flags & INTERRUPTED == 0;
                each(message);
            })?;
            if whole {
                return Ok(());
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    /// Sends messages numbered `first` to `last`, and waits for the answer to the last one. An error for the first
    /// one ends it too: so the kernel answers when it refuses all of a transaction.
    pub(super) fn exchange(
        &mut self,
        request: &[u8],
        first: u32,
        last: u32,
        mut each: impl FnMut(&Message<'_>),
    ) -> io::Result<()> {
        let sent = self.socket.send(request, 0)?;
        if sent != request.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let mut failed = None;
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            for (kind, sequence, message) in messages(&datagram) {
                // Answers to a request that was given up earlier.
                if sequence.wrapping_sub(first) > last.wrapping_sub(first) {
                    continue;
                }
                if kind != ERROR && kind != DONE {
                    each(&message);
                    continue;
                }
                let code = i32_at(message.body(), 0).unwrap_or(0);
                if code < 0 {
                    failed.get_or_insert(-code);
                }
                if kind == DONE || sequence == last || (code < 0 && sequence == first) {
                    return failed.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)));
                }
            }
        }
    }
}

/// A message with its header.
pub(super) fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = HEADER + body.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    // No request is near 4 GiB.
    bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(body);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// The messages in what was received: kind, number, and each as a whole.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = (u16, u32, Message<'_>)> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        let raw = rest.get(..length).filter(|raw| raw.len() >= HEADER)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        let kind = u16_at(raw, 4)?;
        let flags = u16_at(raw, 6)?;
        Some((kind, u32_at(raw, 8)?, Message { raw, flags }))
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    u32_at(bytes, at).map(u32::cast_signed)
}
