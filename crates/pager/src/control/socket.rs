//! Frames with descriptors over a stream socket: length (u32, little-endian), then that many bytes of JSON.
//!
//! Descriptors travel with the first byte of their frame and are taken in order by the messages that need them.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest frame. Hot pages are the largest part of any.
const MAX_FRAME_BYTES: usize = 2 << 20;
/// Descriptors that one frame may bring.
pub(crate) const MAX_FDS: usize = 4;
/// Descriptors that may wait for their frame.
const MAX_WAITING_FDS: usize = 16;
/// Bytes read at once.
const READ_BYTES: usize = 16 << 10;

const PREFIX: usize = size_of::<u32>();

/// A message as a frame.
pub(crate) fn frame(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; PREFIX];
    serde_json::to_writer(&mut bytes, message)?;
    let len = bytes.len() - PREFIX;
    if len > MAX_FRAME_BYTES {
        return Err(invalid("the message is too long"));
    }
    // Compared with the maximum, so it fits.
    bytes[..PREFIX].copy_from_slice(&(len as u32).to_le_bytes());
    Ok(bytes)
}

/// Sends as much of `bytes` as goes, with `fds` on the first byte. Never raises a signal.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(invalid("too many descriptors"));
    }
    let sent = rustix::net::sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(sent)
}

/// Receives into `buffer`; descriptors are added to `fds`. Zero bytes mean that the other end is closed.
pub(crate) fn receive(
    socket: impl AsFd,
    buffer: &mut [u8],
    fds: &mut VecDeque<OwnedFd>,
    flags: RecvFlags,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(buffer)],
        &mut control,
        flags | RecvFlags::CMSG_CLOEXEC,
    )?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) || fds.len() > MAX_WAITING_FDS {
        return Err(invalid("too many descriptors"));
    }
    Ok(received.bytes)
}

/// Puts received bytes together to frames.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

/// What reading gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filled {
    /// Some bytes.
    Some,
    /// The other end is closed.
    Closed,
}

impl Inbox {
    /// Reads once.
    pub(crate) fn fill(&mut self, socket: impl AsFd, flags: RecvFlags) -> io::Result<Filled> {
        let start = self.bytes.len();
        self.bytes.resize(start + READ_BYTES, 0);
        let result = receive(socket, &mut self.bytes[start..], &mut self.fds, flags);
        self.bytes.truncate(start + *result.as_ref().unwrap_or(&0));
        match result {
            Ok(0) => Ok(Filled::Closed),
            Ok(_) => Ok(Filled::Some),
            Err(error) => Err(error),
        }
    }

    /// The next whole message.
    pub(crate) fn take<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some((prefix, rest)) = self.bytes.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let len = u32::from_le_bytes(*prefix) as usize;
        if len > MAX_FRAME_BYTES {
            return Err(invalid("the message is too long"));
        }
        let Some(body) = rest.get(..len) else {
            return Ok(None);
        };
        let message = serde_json::from_slice(body)?;
        self.bytes.drain(..PREFIX + len);
        Ok(Some(message))
    }

    /// The next `N` descriptors.
    pub(crate) fn take_fds<const N: usize>(&mut self) -> Option<[OwnedFd; N]> {
        if self.fds.len() < N {
            return None;
        }
        let fds: Vec<OwnedFd> = self.fds.drain(..N).collect();
        fds.try_into().ok()
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn messages_and_descriptors_arrive_in_order() {
        let (one, other) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        let long = "x".repeat(100_000);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for (message, fds) in [
                    ("a", &[file.as_fd()][..]),
                    (&long, &[]),
                    ("c", &[file.as_fd()]),
                ] {
                    let frame = frame(&message).unwrap();
                    let sent = send(&one, &frame, fds).unwrap();
                    std::io::Write::write_all(&mut &one, &frame[sent..]).unwrap();
                }
            });
            let mut inbox = Inbox::default();
            for wanted in ["a", &long, "c"] {
                let found: String = loop {
                    if let Some(message) = inbox.take().unwrap() {
                        break message;
                    }
                    assert_eq!(
                        inbox.fill(&other, RecvFlags::empty()).unwrap(),
                        Filled::Some
                    );
                };
                assert_eq!(found, wanted);
                // Those of a later message may be here already.
                if wanted.len() == 1 {
                    assert!(inbox.take_fds::<1>().is_some());
                }
            }
            assert!(inbox.take_fds::<1>().is_none());
        });
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in [
            &u32::MAX.to_le_bytes()[..],
            &[1, 0, 0, 0, b'{'],
            &[2, 0, 0, 0, 0xff, 0xff],
        ] {
            let mut inbox = Inbox {
                bytes: bytes.to_vec(),
                ..Inbox::default()
            };
            assert!(inbox.take::<String>().is_err(), "{bytes:?}");
        }
        let mut short = Inbox {
            bytes: vec![5, 0, 0, 0, b'"'],
            ..Inbox::default()
        };
        assert_eq!(short.take::<String>().unwrap(), None);
    }
}
