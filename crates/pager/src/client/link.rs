//! A connection to one pager: requests in turn, and a thread that reads answers and events.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::RecvFlags;

use super::PagerError;
use crate::control::{Filled, FromPager, Inbox, Numbered, PagerEvent, Reply, Request, frame, send};

/// An answer with what came with it.
pub(super) struct Answer {
    pub(super) reply: Reply,
    pub(super) fds: Option<[OwnedFd; 3]>,
}

/// The requests' side of a connection.
pub(super) struct Link {
    socket: UnixStream,
    answers: Receiver<(u64, Answer)>,
    number: u64,
}

impl Link {
    /// Takes over a connected socket. `report` is called in the reading thread: with events, and with `None` once
    /// when the pager is gone. It must not wait.
    pub(super) fn new(
        socket: UnixStream,
        report: impl Fn(Option<PagerEvent>) + Send + 'static,
    ) -> Result<Self, PagerError> {
        let reading = socket
            .try_clone()
            .map_err(PagerError::io("duplicate the connection to a pager"))?;
        // One request is under way at a time; an answer that came too late waits here until the next is taken.
        let (answered, answers) = sync_channel(4);
        thread::Builder::new()
            .name("pager-link".into())
            .spawn(move || {
                read_all(&reading, &answered, &report);
                report(None);
            })
            .map_err(PagerError::io("start a thread"))?;
        Ok(Self {
            socket,
            answers,
            number: 0,
        })
    }

    /// Asks and waits for the answer.
    pub(super) fn request(
        &mut self,
        request: Request,
        fds: &[BorrowedFd<'_>],
        limit: Duration,
    ) -> Result<Answer, PagerError> {
        let deadline = Instant::now() + limit;
        self.number += 1;
        let number = self.number;
        self.send(&Numbered { number, request }, fds, limit)?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (found, answer) = self
                .answers
                .recv_timeout(left)
                .map_err(|error| match error {
                    std::sync::mpsc::RecvTimeoutError::Timeout => PagerError::Deadline {
                        what: "the answer of a pager",
                        limit,
                    },
                    std::sync::mpsc::RecvTimeoutError::Disconnected => {
                        PagerError::lost("it has ended")
                    }
                })?;
            if found != number {
                continue;
            }
            return match answer.reply {
                Reply::Refused { reason } => Err(PagerError::Refused { reason }),
                _ => Ok(answer),
            };
        }
    }

    fn send(
        &self,
        message: &Numbered,
        fds: &[BorrowedFd<'_>],
        limit: Duration,
    ) -> Result<(), PagerError> {
        let bytes = frame(message).map_err(PagerError::io("write a request"))?;
        self.socket
            .set_write_timeout(Some(limit))
            .map_err(PagerError::io("set a time limit"))?;
        let mut sent = 0;
        while sent < bytes.len() {
            let fds = if sent == 0 { fds } else { &[] };
            sent += send(&self.socket, &bytes[sent..], fds).map_err(PagerError::lost)?;
        }
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Ends the reading thread too.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

fn read_all(
    socket: &UnixStream,
    answered: &SyncSender<(u64, Answer)>,
    report: &impl Fn(Option<PagerEvent>),
) {
    let mut inbox = Inbox::default();
    loop {
        match inbox.fill(socket, RecvFlags::empty()) {
            Ok(Filled::Some) => {}
            Ok(Filled::Closed) => return,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
        loop {
            match inbox.take::<FromPager>() {
                Ok(Some(FromPager::Event(event))) => report(Some(event)),
                Ok(Some(FromPager::Reply { number, reply })) => {
                    let fds = match reply {
                        Reply::Adopted(_) => inbox.take_fds(),
                        _ => None,
                    };
                    if answered.try_send((number, Answer { reply, fds })).is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "a pager says what cannot be understood");
                    return;
                }
            }
        }
    }
}
