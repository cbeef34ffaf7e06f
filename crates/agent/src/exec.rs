//! A running command: its process, its streams, its time limit.
//!
//! Used for the host's exec sessions and for the post-fork command. Nothing here blocks. The
//! command is over when its process is: what had been written by then is still delivered, but a
//! background child that inherited the streams does not keep the session open.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use protocol::{ExitStatus, MAX_CHUNK, OutputKind, TerminalSize};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::launch::NotStarted;
use crate::sys;

/// A terminal hands its output over with a delay, so its last bytes are waited for after the
/// process has ended.
const TERMINAL_DRAIN: Duration = Duration::from_millis(50);
/// Bytes taken from a terminal after the process has ended.
const TERMINAL_REST: u64 = 256 * 1024;
/// What the user types to end input on a terminal: ^D.
const END_OF_INPUT: u8 = 4;

/// The ends of a command's streams that the process gets.
#[derive(Debug)]
pub(crate) struct ChildEnds {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

#[derive(Debug)]
pub(crate) struct Exec {
    pid: Option<u32>,
    stdin: Option<OwnedFd>,
    input: VecDeque<u8>,
    input_ended: bool,
    outputs: Vec<Output>,
    terminal: bool,
    kill_at: Option<Instant>,
    timed_out: bool,
    ended: Option<Ended>,
}

#[derive(Debug)]
struct Output {
    kind: OutputKind,
    fd: OwnedFd,
    ready: bool,
    /// What may still be read once the process has ended.
    rest: Option<u64>,
}

#[derive(Debug)]
struct Ended {
    status: ExitStatus,
    /// Text for standard error of a command that never ran.
    message: Option<Vec<u8>>,
    drain_until: Instant,
}

/// What a command has to say.
#[derive(Debug)]
pub(crate) enum Step {
    Output(OutputKind, Vec<u8>),
    Exit(ExitStatus),
    /// Nothing now.
    Blocked,
}

impl Exec {
    /// Makes the streams of a command: pipes, or a terminal.
    pub(crate) fn open(
        tty: Option<TerminalSize>,
        with_input: bool,
    ) -> Result<(Exec, ChildEnds), Errno> {
        let mut exec = Exec {
            pid: None,
            stdin: None,
            input: VecDeque::new(),
            input_ended: false,
            outputs: Vec::new(),
            terminal: tty.is_some(),
            kill_at: None,
            timed_out: false,
            ended: None,
        };
        let ends = match tty {
            Some(size) => exec.open_terminal(size)?,
            None => exec.open_pipes(with_input)?,
        };
        Ok((exec, ends))
    }

    fn open_terminal(&mut self, size: TerminalSize) -> Result<ChildEnds, Errno> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        unlockpt(&master)?;
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        tcsetwinsize(&slave, winsize(size))?;
        rustix::fs::fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK)?;
        self.stdin = Some(rustix::io::fcntl_dupfd_cloexec(&master, 3)?);
        self.outputs.push(Output {
            kind: OutputKind::Stdout,
            fd: master,
            ready: true,
            rest: None,
        });
        let dup = || rustix::io::fcntl_dupfd_cloexec(&slave, 3);
        Ok(ChildEnds {
            stdin: dup()?,
            stdout: dup()?,
            stderr: slave,
        })
    }

    fn open_pipes(&mut self, with_input: bool) -> Result<ChildEnds, Errno> {
        let stdin = if with_input {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            rustix::fs::fcntl_setfl(&write, OFlags::NONBLOCK)?;
            self.stdin = Some(write);
            read
        } else {
            rustix::fs::open(
                "/dev/null",
                OFlags::RDONLY | OFlags::CLOEXEC,
                rustix::fs::Mode::empty(),
            )?
        };
        let stdout = self.open_output(OutputKind::Stdout)?;
        let stderr = self.open_output(OutputKind::Stderr)?;
        Ok(ChildEnds {
            stdin,
            stdout,
            stderr,
        })
    }

    fn open_output(&mut self, kind: OutputKind) -> Result<OwnedFd, Errno> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::fs::fcntl_setfl(&read, OFlags::NONBLOCK)?;
        self.outputs.push(Output {
            kind,
            fd: read,
            ready: true,
            rest: None,
        });
        Ok(write)
    }

    /// Descriptors to watch.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = impl AsFd> {
        self.outputs
            .iter()
            .map(|output| output.fd.as_fd())
            .chain(self.stdin.iter().map(AsFd::as_fd))
    }

    /// The process runs.
    pub(crate) fn started(&mut self, pid: u32, timeout: Option<Duration>) {
        self.pid = Some(pid);
        self.kill_at = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    }

    /// There will be no process.
    pub(crate) fn not_started(&mut self, why: NotStarted) {
        self.outputs.clear();
        self.stdin = None;
        self.ended = Some(Ended {
            status: ExitStatus::exited(why.code),
            message: Some(format!("coppice: {}\n", why.message).into_bytes()),
            drain_until: Instant::now(),
        });
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// The process ended.
    pub(crate) fn exited(&mut self, status: ExitStatus) {
        let status = if self.timed_out {
            status.timed_out()
        } else {
            status
        };
        self.pid = None;
        self.stdin = None;
        self.input.clear();
        for output in &mut self.outputs {
            let waiting = rustix::io::ioctl_fionread(&output.fd).unwrap_or(0);
            output.rest = Some(if self.terminal {
                TERMINAL_REST
            } else {
                waiting
            });
            output.ready = true;
        }
        let drain = if self.terminal {
            TERMINAL_DRAIN
        } else {
            Duration::ZERO
        };
        self.ended = Some(Ended {
            status,
            message: None,
            drain_until: Instant::now() + drain,
        });
    }

    /// An edge was seen on one of the streams.
    pub(crate) fn woken(&mut self) {
        for output in &mut self.outputs {
            output.ready = true;
        }
    }

    /// When something must be done without an edge.
    pub(crate) fn next_time(&self) -> Option<Instant> {
        match &self.ended {
            Some(ended) => self.terminal.then_some(ended.drain_until),
            None => self.kill_at,
        }
    }

    /// Kills the command when its time is over.
    pub(crate) fn check_time(&mut self, now: Instant) {
        if self.ended.is_none() && self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            self.timed_out = true;
            self.kill();
        }
        if self
            .ended
            .as_ref()
            .is_some_and(|ended| ended.drain_until <= now)
        {
            self.woken();
        }
    }

    /// Kills the process group.
    pub(crate) fn kill(&mut self) {
        self.signal(libc::SIGKILL);
    }

    /// Signals the process group. It can be gone already.
    pub(crate) fn signal(&mut self, signal: i32) {
        if let Some(group) = self.pid.and_then(|pid| i32::try_from(pid).ok()) {
            let _ = sys::kill(-group, signal);
        }
    }

    pub(crate) fn resize(&mut self, size: TerminalSize) {
        if self.terminal
            && let Some(output) = self.outputs.first()
        {
            // Only a terminal that has just gone refuses.
            let _ = tcsetwinsize(&output.fd, winsize(size));
        }
    }

    pub(crate) fn add_input(&mut self, bytes: &[u8]) {
        if self.stdin.is_some() && !self.input_ended {
            self.input.extend(bytes);
        }
    }

    pub(crate) fn end_input(&mut self) {
        if self.terminal && !self.input_ended {
            self.input.push_back(END_OF_INPUT);
        }
        self.input_ended = true;
    }

    /// Bytes of input the process has not taken yet.
    pub(crate) fn input_waiting(&self) -> usize {
        self.input.len()
    }

    /// Writes input as the process takes it.
    pub(crate) fn push_input(&mut self) {
        while let Some(stdin) = &self.stdin {
            let (front, _) = self.input.as_slices();
            if front.is_empty() {
                if self.input_ended && !self.terminal {
                    self.stdin = None;
                }
                return;
            }
            match rustix::io::write(stdin, front) {
                Ok(len) => drop(self.input.drain(..len)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // Nobody reads any more: the rest is lost, as it is in a shell's pipeline.
                Err(_) => {
                    self.input.clear();
                    self.stdin = None;
                }
            }
        }
        self.input.clear();
    }

    /// The next thing to tell, with at most `room` bytes of output.
    pub(crate) fn step(&mut self, room: usize) -> Step {
        if room == 0 {
            return Step::Blocked;
        }
        if let Some(message) = self.ended.as_mut().and_then(|ended| ended.message.take()) {
            return Step::Output(OutputKind::Stderr, message);
        }
        let drained = self
            .ended
            .as_ref()
            .is_some_and(|ended| ended.drain_until <= Instant::now());
        let mut index = 0;
        while let Some(output) = self.outputs.get_mut(index) {
            match output.read(room, drained) {
                Read::Data(bytes) => {
                    let kind = output.kind;
                    // The other stream is looked at first next time.
                    self.outputs.rotate_left(1);
                    return Step::Output(kind, bytes);
                }
                Read::Nothing => index += 1,
                Read::End => drop(self.outputs.remove(index)),
            }
        }
        match &self.ended {
            Some(ended) if self.outputs.is_empty() => Step::Exit(ended.status),
            Some(_) | None => Step::Blocked,
        }
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        self.kill();
    }
}

enum Read {
    Data(Vec<u8>),
    Nothing,
    End,
}

impl Output {
    /// `drained`: the process has ended and what it wrote must have arrived.
    fn read(&mut self, room: usize, drained: bool) -> Read {
        let room = room.min(MAX_CHUNK).min(
            self.rest
                .map_or(usize::MAX, |rest| rest.try_into().unwrap_or(usize::MAX)),
        );
        if room == 0 {
            return Read::End;
        }
        if !self.ready {
            return Read::Nothing;
        }
        let mut bytes = vec![0; room];
        loop {
            match rustix::io::read(&self.fd, &mut bytes) {
                Ok(0) => return Read::End,
                Ok(len) => {
                    bytes.truncate(len);
                    self.rest = self.rest.map(|rest| rest.saturating_sub(len as u64));
                    return Read::Data(bytes);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if drained => return Read::End,
                Err(Errno::AGAIN) => {
                    self.ready = false;
                    return Read::Nothing;
                }
                // A terminal whose last user has gone says EIO.
                Err(_) => return Read::End,
            }
        }
    }
}

fn winsize(size: TerminalSize) -> Winsize {
    Winsize {
        ws_row: size.rows,
        ws_col: size.cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
