//! The machine's program: the one process whose end is the end of the machine.

use std::os::fd::{AsFd, OwnedFd};

use protocol::{ExitStatus, GuestPhase, ProgramExit, StartSpec};
use rustix::fs::{Gid, Mode, OFlags, Uid, fchown};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::account::Account;
use crate::enclosure::Enclosure;
use crate::launch::{Launch, NotStarted, launch};
use crate::log::LogPort;
use crate::sys;

/// What is known of the program.
#[derive(Debug, Default)]
pub(crate) struct Program {
    state: State,
    output: Option<OwnedFd>,
    ready: bool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Waiting,
    Running(u32),
    Exited(ProgramExit),
}

impl Program {
    /// Starts the program. One that cannot be run has exited at once, and the log says why.
    pub(crate) fn start(
        &mut self,
        spec: &StartSpec,
        env: &[(String, String)],
        account: &Account,
        enclosure: Option<&Enclosure>,
        log: &mut LogPort,
    ) -> Result<u32, Errno> {
        let stdin = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let (output, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::fs::fcntl_setfl(&output, OFlags::NONBLOCK)?;
        // Programs reopen /dev/stdout by name, which asks for the permission again. Only root can
        // give it away.
        let _ = fchown(
            &stdout,
            Some(Uid::from_raw(account.uid)),
            Some(Gid::from_raw(account.gid)),
        );
        let stderr = rustix::io::fcntl_dupfd_cloexec(&stdout, 3)?;
        let workdir = if spec.workdir.is_empty() {
            "/"
        } else {
            &spec.workdir
        };
        // Image builders name working directories that no layer holds. If it cannot be made, the
        // launch says so.
        let _ = std::fs::create_dir_all(workdir);
        let started = launch(Launch {
            argv: &spec.argv,
            env,
            cwd: workdir.as_ref(),
            account,
            enclosure,
            stdin,
            stdout,
            stderr,
            terminal: false,
        });
        match started {
            Ok(pid) => {
                self.output = Some(output);
                self.ready = true;
                self.state = State::Running(pid);
                Ok(pid)
            }
            Err(NotStarted { code, message }) => {
                log.say(&message);
                self.state = State::Exited(ProgramExit {
                    code,
                    signal: None,
                    message: Some(message),
                });
                Ok(0)
            }
        }
    }

    pub(crate) fn output(&self) -> Option<impl AsFd> {
        self.output.as_ref().map(AsFd::as_fd)
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        match self.state {
            State::Running(pid) => Some(pid),
            State::Waiting | State::Exited(_) => None,
        }
    }

    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting)
    }

    pub(crate) fn exit(&self) -> Option<&ProgramExit> {
        match &self.state {
            State::Exited(exit) => Some(exit),
            State::Waiting | State::Running(_) => None,
        }
    }

    pub(crate) fn phase(&self) -> GuestPhase {
        match &self.state {
            State::Waiting => GuestPhase::Waiting,
            State::Running(pid) => GuestPhase::Started { pid: *pid },
            State::Exited(exit) => GuestPhase::Exited(exit.clone()),
        }
    }

    /// The process ended.
    pub(crate) fn exited(&mut self, status: ExitStatus) {
        let message = status
            .signal
            .map(|signal| format!("killed by signal {signal}"));
        self.state = State::Exited(ProgramExit {
            code: status.code,
            signal: status.signal,
            message,
        });
    }

    /// Signals the program alone, as a container runtime does; its children are its own business.
    pub(crate) fn signal(&self, signal: i32) {
        if let Some(pid) = self.pid().and_then(|pid| i32::try_from(pid).ok()) {
            // It can be gone already.
            let _ = sys::kill(pid, signal);
        }
    }

    /// Kills the program and what is left of its process group.
    pub(crate) fn kill(&self) {
        if let Some(pid) = self.pid().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = sys::kill(-pid, libc::SIGKILL);
        }
    }

    /// An edge was seen on the output.
    pub(crate) fn woken(&mut self) {
        self.ready = true;
    }

    /// Moves output to the log; `true` when there was some.
    pub(crate) fn pump(&mut self, log: &mut LogPort) -> bool {
        let Some(output) = &self.output else {
            return false;
        };
        let room = log.room();
        if !self.ready || room == 0 {
            return false;
        }
        let mut bytes = [0; 4096];
        let room = room.min(bytes.len());
        match rustix::io::read(output, &mut bytes[..room]) {
            Ok(0) => self.output = None,
            Ok(len) => {
                log.add(&bytes[..len]);
                return true;
            }
            Err(Errno::INTR) => return true,
            Err(Errno::AGAIN) => self.ready = false,
            Err(_) => self.output = None,
        }
        false
    }
}
