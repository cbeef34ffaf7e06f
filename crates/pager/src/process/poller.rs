//! What can wake the loop, on one epoll descriptor.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};

/// Who has something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// A daemon wants to connect.
    Listener,
    /// A daemon has said something, or can be written to.
    Control(u32),
    /// A machine's userfaultfd has messages.
    Faults(u32),
    /// A machine's process has ended.
    End(u32),
}

impl Token {
    fn to_word(self) -> u64 {
        let (kind, key) = match self {
            Self::Listener => (0, 0),
            Self::Control(key) => (1, key),
            Self::Faults(key) => (2, key),
            Self::End(key) => (3, key),
        };
        kind << 32 | u64::from(key)
    }

    fn from_word(word: u64) -> Self {
        // The lower half is the key.
        let key = word as u32;
        match word >> 32 {
            1 => Self::Control(key),
            2 => Self::Faults(key),
            3 => Self::End(key),
            _ => Self::Listener,
        }
    }
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interest {
    /// The end, which is told in any case.
    End,
    /// Something to read, or the end.
    Read,
    /// That, and room to write.
    ReadWrite,
}

/// The epoll descriptor.
#[derive(Debug)]
pub(super) struct Poller(OwnedFd);

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    pub(super) fn add(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token.to_word());
        Ok(epoll::add(&self.0, fd, data, epoll::EventFlags::IN)?)
    }

    pub(super) fn change(&self, fd: impl AsFd, token: Token, interest: Interest) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token.to_word());
        let flags = match interest {
            Interest::End => epoll::EventFlags::empty(),
            Interest::Read => epoll::EventFlags::IN,
            Interest::ReadWrite => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        };
        Ok(epoll::modify(&self.0, fd, data, flags)?)
    }

    /// Must be called before a descriptor is closed of which others have duplicates: those would keep it here.
    pub(super) fn remove(&self, fd: impl AsFd) {
        // Fails only for what is not there any more.
        let _ = epoll::delete(&self.0, fd);
    }

    /// Waits up to `timeout` and gives who has something.
    pub(super) fn wait(&self, timeout: Option<Duration>) -> io::Result<Vec<Token>> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        let mut events = Vec::with_capacity(64);
        match epoll::wait(
            &self.0,
            rustix::buffer::spare_capacity(&mut events),
            timeout.as_ref(),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let token = |event: &epoll::Event| Token::from_word(event.data.u64());
        Ok(events.iter().map(token).collect())
    }
}
