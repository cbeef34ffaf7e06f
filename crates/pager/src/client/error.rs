//! What can go wrong at the daemon's end.

use std::io;
use std::time::Duration;

use memory::ImageError;

/// Why a supervisor cannot do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum PagerError {
    /// The image cannot be served.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A call failed.
    #[error("cannot {action}")]
    Io {
        /// What was to be done.
        action: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The VMM's end of the handshake is not as it must be.
    #[error("the VMM's handshake is refused: {what}")]
    Handshake {
        /// What is wrong.
        what: String,
    },
    /// Something took too long.
    #[error("{what} took longer than {} ms", limit.as_millis())]
    Deadline {
        /// What was waited for.
        what: &'static str,
        /// The time it had.
        limit: Duration,
    },
    /// The pager said no.
    #[error("the pager refuses: {reason}")]
    Refused {
        /// Its reason.
        reason: String,
    },
    /// The pager is gone, or says what cannot be understood.
    #[error("no pager is there: {what}")]
    Lost {
        /// What is known.
        what: String,
    },
}

impl PagerError {
    pub(super) fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }

    pub(super) fn lost(what: impl ToString) -> Self {
        Self::Lost {
            what: what.to_string(),
        }
    }
}
