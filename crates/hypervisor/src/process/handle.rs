//! A handle to a running process by pidfd: no race with reuse of its number.
//!
//! Held by a machine's handle; any number of tasks may wait for the end. A child of this daemon is reaped by
//! whoever sees the end first; of an adopted process nobody learns the exit status.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::io::unix::AsyncFd;

use super::{ProcessId, sys};
use crate::ExitReason;

#[derive(Debug)]
pub(crate) struct Process {
    id: ProcessId,
    pidfd: AsyncFd<OwnedFd>,
    exit: OnceLock<ExitReason>,
}

impl Process {
    /// Opens the process; `None` if there is none with this number and start time, or it has ended.
    /// Must be called inside a tokio runtime.
    pub(crate) fn open(id: ProcessId) -> io::Result<Option<Self>> {
        let Some(pid) = Pid::from_raw(id.pid) else {
            return Ok(None);
        };
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Err(Errno::SRCH) => return Ok(None),
            opened => opened?,
        };
        // The descriptor is bound to one process now; if the start time fits, it is the right one.
        match ProcessId::of(id.pid) {
            Ok(found) if found == id => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        let pidfd = sys::watch(pidfd)?;
        let process = Self {
            id,
            pidfd,
            exit: OnceLock::new(),
        };
        Ok((!process.has_ended()?).then_some(process))
    }

    pub(crate) fn id(&self) -> ProcessId {
        self.id
    }

    /// Waits for the end. May be dropped and called again.
    pub(crate) async fn exited(&self) -> ExitReason {
        if let Some(reason) = self.exit.get() {
            return *reason;
        }
        // A failure means that the runtime is going down; then nobody waits for the true reason.
        match self.pidfd.readable().await {
            Ok(mut ready) => ready.retain_ready(),
            Err(_) => return ExitReason::Unknown,
        }
        *self.exit.get_or_init(|| self.reap())
    }

    /// Kills it; no error if it has ended.
    pub(crate) fn kill(&self) -> io::Result<()> {
        self.signal(Signal::KILL)
    }

    /// Sends a signal; no error if it has ended.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A pidfd becomes readable when its process ends, also while that is a zombie.
    pub(crate) fn has_ended(&self) -> io::Result<bool> {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let now = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let ended = poll(&mut fds, Some(&now))? > 0;
        if ended {
            self.reap();
        }
        Ok(ended)
    }

    fn reap(&self) -> ExitReason {
        use std::os::fd::AsFd;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => ExitReason::Code(code),
                (None, Some(signal)) => ExitReason::Signal(signal),
                (None, None) => ExitReason::Unknown,
            },
            Ok(None) | Err(_) => ExitReason::Unknown,
        }
    }
}
