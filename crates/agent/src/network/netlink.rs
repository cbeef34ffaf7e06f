//! Talking to the kernel about its network: requests and answers of netlink(7).
//!
//! A handful of requests is all the agent needs, so they are put together here, byte by byte.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

/// The kernel answers at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// Most the kernel puts into one part of a long answer.
const PART: usize = 32 * 1024;

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Everything begins at a multiple of this.
const ALIGN: usize = 4;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
pub(super) const NLM_F_REPLACE: u16 = 0x100;
pub(super) const NLM_F_CREATE: u16 = 0x400;
const NLM_F_DUMP: u16 = 0x300;

/// A request in the making.
#[derive(Debug)]
pub(super) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A request of this kind that begins with `body`, a structure of the kernel's.
    pub(super) fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(128);
        // The length comes last.
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        // A sequence number, and the port that the kernel fills in. There is one request at a time.
        bytes.extend([0; 8]);
        bytes.extend(body);
        let mut request = Request { bytes };
        request.pad();
        request
    }

    /// Adds an attribute.
    pub(super) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        // The header of an attribute is 4 bytes; what is put here is an address or a number.
        let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.bytes.extend(len.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.pad();
        self
    }

    fn pad(&mut self) {
        self.bytes
            .resize(self.bytes.len().next_multiple_of(ALIGN), 0);
    }

    fn finish(mut self, flags: u16) -> Vec<u8> {
        let len = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes[6] |= flags.to_ne_bytes()[0];
        self.bytes[7] |= flags.to_ne_bytes()[1];
        self.bytes
    }
}

/// A connection to one part of the kernel.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    /// Connects; `None` is the part that keeps links, addresses and routes.
    pub(super) fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Netlink { socket })
    }

    /// Has something done.
    pub(super) fn run(&self, request: Request) -> io::Result<()> {
        self.send(request, NLM_F_ACK)?;
        self.answers(|_, _| {})
    }

    /// Has a list told: `each` gets the kind and the body of each entry.
    pub(super) fn list(&self, request: Request, each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        self.send(request, NLM_F_DUMP)?;
        self.answers(each)
    }

    fn send(&self, request: Request, flags: u16) -> io::Result<()> {
        let bytes = request.finish(flags);
        send(&self.socket, &bytes, SendFlags::empty())?;
        Ok(())
    }

    fn answers(&self, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        let mut buffer = vec![0; PART];
        loop {
            let len = match recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((len, _)) => len,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if let Some(end) = read_part(&buffer[..len], &mut each) {
                return end;
            }
        }
    }
}

/// Hands out the messages of one part of an answer; the outcome, if it was the last one.
fn read_part(mut part: &[u8], each: &mut impl FnMut(u16, &[u8])) -> Option<io::Result<()>> {
    let cut_off = || Some(Err(io::ErrorKind::UnexpectedEof.into()));
    while !part.is_empty() {
        let (Some(len), Some(kind)) = (number(part, 0), part.get(4..6)) else {
            return cut_off();
        };
        let kind = u16::from_ne_bytes([kind[0], kind[1]]);
        let Some(body) = part.get(HEADER..len as usize) else {
            return cut_off();
        };
        match kind {
            NLMSG_DONE => return Some(Ok(())),
            NLMSG_ERROR => {
                let Some(code) = number(body, 0) else {
                    return cut_off();
                };
                // 0 is the acknowledgement; others are negative error numbers.
                return Some(match code.cast_signed() {
                    0 => Ok(()),
                    code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
                });
            }
            kind => each(kind, body),
        }
        part = part
            .get((len as usize).next_multiple_of(ALIGN)..)
            .unwrap_or_default();
    }
    None
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_aligned_and_know_their_length() {
        let bytes = Request::new(20, 0, &[1, 2, 3])
            .with(4, &[9])
            .with(5, &[7; 4])
            .finish(NLM_F_ACK);
        let expected_head = [
            &36_u32.to_ne_bytes()[..],
            &20_u16.to_ne_bytes(),
            &5_u16.to_ne_bytes(),
        ];
        assert_eq!(bytes[..8], expected_head.concat());
        assert_eq!(bytes[16..20], [1, 2, 3, 0]);
        assert_eq!(bytes[20..28], [5, 0, 4, 0, 9, 0, 0, 0]);
        assert_eq!(bytes[28..], [8, 0, 5, 0, 7, 7, 7, 7]);
    }

    #[test]
    fn answers_are_read_to_their_end() {
        let message = |kind: u16, body: &[u8]| Request::new(kind, 0, body).finish(0);
        let read = |part: &[u8]| {
            let mut found = Vec::new();
            let end = read_part(part, &mut |kind, body: &[u8]| {
                found.push((kind, body.to_vec()));
            });
            (
                found,
                end.map(|end| end.map_err(|error| error.raw_os_error())),
            )
        };
        let two = [message(20, &[1; 4]), message(21, &[2; 8])].concat();
        let both = vec![(20, vec![1; 4]), (21, vec![2; 8])];
        assert_eq!(read(&two), (both, None));
        assert_eq!(read(&message(NLMSG_DONE, &[0; 4])), (vec![], Some(Ok(()))));
        let error = message(NLMSG_ERROR, &(-17_i32).to_ne_bytes());
        assert_eq!(read(&error), (vec![], Some(Err(Some(17)))));
        assert_eq!(read(&two[..10]), (vec![], Some(Err(None))));
        assert_eq!(read(&two[..18]), (vec![], Some(Err(None))));
    }

    #[test]
    fn the_kernel_lists_its_links() {
        // RTM_GETLINK, with an empty `struct ifinfomsg`; answers are RTM_NEWLINK.
        let mut kinds = Vec::new();
        Netlink::open(None)
            .unwrap()
            .list(Request::new(18, 0, &[0; 16]), |kind, _| kinds.push(kind))
            .unwrap();
        assert!(
            !kinds.is_empty() && kinds.iter().all(|kind| *kind == 16),
            "{kinds:?}"
        );
    }
}
