//! One epoll set, edge triggered throughout.
//!
//! Edge triggering is what makes waiting for the host cheap: a port whose host has gone reports
//! "hung up" for as long as that lasts, so level triggering would spin. An edge comes when the host
//! connects, when it sends, and when there is room again. Users therefore remember that a
//! descriptor is ready until a call on it says otherwise.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use protocol::CallId;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// What a descriptor belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    /// The channel to the host.
    Port,
    /// The socket on which the host makes such a channel.
    Listener,
    /// Pending SIGCHLD.
    Signals,
    /// The log port.
    Log,
    /// The socket on which the host makes one.
    LogListener,
    /// The program's output.
    Program,
    /// A stream of a session, or of the post-fork command.
    Session(CallId),
    /// A process that is waited for by descriptor.
    Child(u32),
}

const EVENTS: usize = 16;

#[derive(Debug)]
pub(crate) struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Poller {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
        })
    }

    /// Watches `fd` until it is closed. Regular files cannot be watched and need not be: they are
    /// always ready.
    pub(crate) fn watch(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        match epoll::add(&self.epoll, fd, EventData::new_u64(token.into()), flags) {
            Ok(()) | Err(Errno::PERM) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for edges; an empty list means that the time is over.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> io::Result<Vec<Token>> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let none = Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0),
        };
        let mut events = [none; EVENTS];
        match epoll::wait(&self.epoll, &mut events[..], timeout.as_ref()) {
            Ok(count) => Ok(events[..count]
                .iter()
                .filter_map(|event| Token::parse(event.data.u64()))
                .collect()),
            Err(Errno::INTR) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Token {
    fn parse(value: u64) -> Option<Self> {
        let number = value as u32;
        match value >> 32 {
            1 => Some(Token::Port),
            2 => Some(Token::Signals),
            3 => Some(Token::Log),
            4 => Some(Token::Program),
            5 => Some(Token::Session(number)),
            6 => Some(Token::Child(number)),
            7 => Some(Token::Listener),
            8 => Some(Token::LogListener),
            _ => None,
        }
    }
}

impl From<Token> for u64 {
    fn from(token: Token) -> u64 {
        let (kind, number) = match token {
            Token::Port => (1, 0),
            Token::Signals => (2, 0),
            Token::Log => (3, 0),
            Token::Program => (4, 0),
            Token::Session(call) => (5, call),
            Token::Child(pid) => (6, pid),
            Token::Listener => (7, 0),
            Token::LogListener => (8, 0),
        };
        kind << 32 | u64::from(number)
    }
}
