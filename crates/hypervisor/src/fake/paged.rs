//! A fake machine's memory in the hands of a pager.
//!
//! As with a real one, the VMM connects to the pager's socket, hands over one descriptor with one message, and its
//! load goes on when the pager has served the first fault, for which a byte on that descriptor stands. The connection
//! is closed when the machine ends.

use std::io::{IoSlice, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::sync::watch;

use super::machine::Condition;
use crate::machine::blocking;
use crate::{ExitReason, VmmError};

/// How long a load waits for its first page.
const FIRST_PAGE: Duration = Duration::from_secs(20);

/// A memory that was handed over.
pub(super) struct Paged {
    connection: UnixStream,
    /// Stands for the userfaultfd.
    _faults: UnixStream,
}

/// Hands the memory of `name` over to the pager that listens at `socket`.
pub(super) async fn hand_over(socket: &Path, name: &str) -> Result<Paged, VmmError> {
    let (socket, name) = (PathBuf::from(socket), name.to_owned());
    blocking(move || {
        let failed = || VmmError::io("hand over memory at", &socket);
        // The path may be longer than the kernel takes.
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let place = rustix::fs::open(&socket, flags, Mode::empty())
            .map_err(|error| failed()(error.into()))?;
        let short = format!("/proc/self/fd/{}", place.as_raw_fd());
        let connection = UnixStream::connect(short).map_err(failed())?;
        let (mut faults, theirs) = UnixStream::pair().map_err(failed())?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [theirs.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let text = [IoSlice::new(name.as_bytes())];
        rustix::net::sendmsg(&connection, &text, &mut control, SendFlags::NOSIGNAL)
            .map_err(|error| failed()(error.into()))?;
        drop(theirs);
        faults
            .set_read_timeout(Some(FIRST_PAGE))
            .and_then(|()| faults.read_exact(&mut [0]))
            // A pager that does not want a machine kills it.
            .map_err(|_| VmmError::Exited {
                reason: ExitReason::Signal(9),
                stderr: String::new(),
            })?;
        Ok(Paged {
            connection,
            _faults: faults,
        })
    })
    .await
}

impl Paged {
    /// Keeps the memory for as long as the machine has not ended.
    pub(super) async fn hold(self, mut condition: watch::Receiver<Condition>) {
        // The sender is gone only when the machine is.
        let _ = condition
            .wait_for(|now| matches!(now, Condition::Ended(_)))
            .await;
        drop(self.connection);
    }
}
