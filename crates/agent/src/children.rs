//! Noticing that processes ended.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;

use protocol::ExitStatus;
use rustix::process::{Pid, PidfdFlags, WaitOptions, WaitStatus, pidfd_open, wait, waitpid};

use crate::poller::{Poller, Token};
use crate::sys;

/// How processes are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaping {
    /// All children, orphans of the machine included: the duty of PID 1.
    Everything,
    /// Only processes this server started: when it shares its process with others.
    Own,
}

#[derive(Debug)]
pub(crate) enum Children {
    Everything { signals: OwnedFd },
    Own { processes: HashMap<u32, OwnedFd> },
}

impl Children {
    pub(crate) fn new(reaping: Reaping, poller: &Poller) -> io::Result<Self> {
        match reaping {
            Reaping::Everything => {
                let signals = sys::child_signals()?;
                poller.watch(&signals, Token::Signals)?;
                Ok(Children::Everything { signals })
            }
            Reaping::Own => Ok(Children::Own {
                processes: HashMap::new(),
            }),
        }
    }

    /// A process was started.
    pub(crate) fn watch(&mut self, pid: u32, poller: &Poller) -> io::Result<()> {
        match self {
            Children::Everything { .. } => Ok(()),
            Children::Own { processes } => {
                let fd = pidfd_open(raw(pid)?, PidfdFlags::empty())?;
                poller.watch(&fd, Token::Child(pid))?;
                processes.insert(pid, fd);
                Ok(())
            }
        }
    }

    /// SIGCHLD is pending: everything that has ended.
    pub(crate) fn reap_all(&mut self) -> Vec<(u32, ExitStatus)> {
        let mut ended = Vec::new();
        if let Children::Everything { signals } = self {
            let mut info = [0; 128];
            while rustix::io::read(&*signals, &mut info).is_ok_and(|len| len > 0) {}
            while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                ended.extend(
                    status_of(status)
                        .map(|status| (pid.as_raw_nonzero().get().unsigned_abs(), status)),
                );
            }
        }
        ended
    }

    /// The descriptor of a process says that it ended.
    pub(crate) fn reap(&mut self, pid: u32) -> Option<ExitStatus> {
        let Children::Own { processes } = self else {
            return None;
        };
        if !processes.contains_key(&pid) {
            return None;
        }
        let (_, status) = waitpid(Some(raw(pid).ok()?), WaitOptions::NOHANG).ok()??;
        processes.remove(&pid);
        status_of(status)
    }
}

fn raw(pid: u32) -> io::Result<Pid> {
    i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn status_of(status: WaitStatus) -> Option<ExitStatus> {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Some(ExitStatus::exited(code)),
        (None, Some(signal)) => Some(ExitStatus::killed(signal)),
        (None, None) => None,
    }
}
