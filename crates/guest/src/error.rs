//! What can go wrong on a link.

use std::io;

use protocol::{EncodeError, Failure, FrameError, VERSION_MAX, VERSION_MIN};
use thiserror::Error;

/// Failure of a link, a call or a session.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The connection is gone.
    #[error("connection to the guest is closed")]
    Closed,
    /// The stream failed while the connection was made.
    #[error("guest channel failed")]
    Io(#[from] io::Error),
    /// The guest did not answer in time.
    #[error("guest did not answer in time: {what}")]
    Deadline {
        /// What was waited for.
        what: &'static str,
    },
    /// Host and agent have no protocol version in common.
    #[error(
        "agent of this machine is of another version: it speaks protocol versions {min} to {max}, \
         this host {VERSION_MIN} to {VERSION_MAX}; start the machine afresh"
    )]
    Version {
        /// Oldest version of the agent.
        min: u16,
        /// Newest version of the agent.
        max: u16,
    },
    /// The agent answered in words that this host does not know.
    #[error(
        "agent of this machine is of another version: its greeting cannot be read; start the \
         machine afresh"
    )]
    Stranger,
    /// The message is too long to be sent.
    #[error("request cannot be sent to the guest")]
    Encode(#[from] EncodeError),
    /// The agent sent bytes that are no message.
    #[error("guest sent a damaged message")]
    Frame(#[from] FrameError),
    /// The agent sent a message that has no place here.
    #[error("guest sent an unexpected message")]
    Unexpected,
    /// The session is over; what was written to it is lost.
    #[error("session has ended")]
    Ended,
    /// The agent refused, or could not finish.
    #[error("guest refused")]
    Refused(#[source] Failure),
}

impl LinkError {
    /// The agent's own words, if it was the agent who refused.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            LinkError::Refused(failure) => Some(failure),
            LinkError::Closed
            | LinkError::Io(_)
            | LinkError::Deadline { .. }
            | LinkError::Version { .. }
            | LinkError::Stranger
            | LinkError::Encode(_)
            | LinkError::Frame(_)
            | LinkError::Unexpected
            | LinkError::Ended => None,
        }
    }
}
