//! The loop: one thread that waits for edges and does what the host asks.
//!
//! ```text
//! phase:       Waiting ──Start──▶ Started ──exit──▶ Exited ──ack──▶ power off
//! connection:  none ──Hello──▶ greeted ──hang up or Hello──▶ all sessions end
//! ```
//!
//! `mod` is the loop, `requests` what the host's messages do, `resume` the waking from a memory
//! image, `freeze` the standstill before it, `rehearse` what is tried meanwhile, `ending` the way
//! down. The machine itself is changed through [`Machine`] only.

mod ending;
mod freeze;
mod rehearse;
mod requests;
mod resume;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use protocol::{CallId, ExitStatus, ToHost};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use self::ending::Ending;
use self::rehearse::Rehearsal;
use self::requests::Context;
use self::resume::PendingResume;
use crate::children::Children;
pub use crate::children::Reaping;
use crate::connection::{Connection, Kind, Received};
use crate::exec::Exec;
use crate::listener::Listener;
use crate::log::{Log, LogPort};
use crate::machine::Machine;
use crate::poller::{Poller, Token};
use crate::program::Program;
use crate::session::{Outcome, Session};

/// Rounds of work between two looks at the clock and at ended processes.
const ROUNDS: usize = 32;

/// How long the kernel must say that the host is not there before it is believed. What a new host
/// sends can be read before the news of its connection are through: for that moment its own words
/// seem to come from nobody.
const ABSENCE: Duration = Duration::from_secs(1);

/// How the host reaches the server.
#[derive(Debug)]
pub enum Channel {
    /// A virtio port: a host that goes will be back on it.
    Port(OwnedFd),
    /// One stream; nobody comes back after its end, and the server returns.
    Stream(OwnedFd),
    /// Connections, of which the newest is served.
    Listener(Listener),
}

/// What it means that the host has gone.
#[derive(Debug)]
enum Hangup {
    Wait,
    Return,
    Accept(Listener),
}

/// The agent's server. See the module's comment.
#[derive(Debug)]
pub struct Server<M> {
    machine: M,
    hangup: Hangup,
    poller: Poller,
    connection: Connection,
    /// A Hello was read since the host connected.
    greeted: bool,
    /// Since when the host seems to be gone, unless it was heard after that.
    absent_since: Option<Instant>,
    children: Children,
    program: Program,
    log: LogPort,
    context: Option<Context>,
    sessions: BTreeMap<CallId, Session>,
    resume: Option<PendingResume>,
    rehearsal: Option<Rehearsal>,
    /// The programs stand still.
    frozen: bool,
    /// The server goes before the programs.
    ahead: bool,
    ending: Ending,
}

impl<M: Machine> Server<M> {
    /// Makes a server that is reached by `channel` and gives the program's output to `log`. Both are
    /// set to not block.
    ///
    /// # Errors
    /// When the kernel refuses a descriptor.
    pub fn new(machine: M, channel: Channel, log: Log, reaping: Reaping) -> io::Result<Self> {
        let (connection, hangup) = match channel {
            Channel::Port(fd) => (Connection::new(Some(fd), Kind::Port), Hangup::Wait),
            Channel::Stream(fd) => (Connection::new(Some(fd), Kind::Socket), Hangup::Return),
            Channel::Listener(it) => (Connection::new(None, Kind::Socket), Hangup::Accept(it)),
        };
        let poller = Poller::new()?;
        let log = LogPort::new(log);
        for (fd, token) in [(connection.fd(), Token::Port), (log.fd(), Token::Log)] {
            if let Some(fd) = fd {
                fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
                poller.watch(fd, token)?;
            }
        }
        if let Hangup::Accept(listener) = &hangup {
            poller.watch(listener.fd(), Token::Listener)?;
        }
        if let Some(listener) = log.listener() {
            poller.watch(listener.fd(), Token::LogListener)?;
        }
        Ok(Server {
            machine,
            hangup,
            children: Children::new(reaping, &poller)?,
            poller,
            connection,
            greeted: false,
            absent_since: None,
            program: Program::default(),
            log,
            context: None,
            sessions: BTreeMap::new(),
            resume: None,
            rehearsal: None,
            frozen: false,
            ahead: false,
            ending: Ending::default(),
        })
    }

    /// Serves until the machine was switched off, or the stream ended where that is final.
    ///
    /// # Errors
    /// When the stream or the kernel fails in a way that leaves nothing to serve.
    pub fn run(mut self) -> io::Result<()> {
        let mut busy = true;
        loop {
            let timeout = if busy {
                Some(Duration::ZERO)
            } else {
                self.fall_in();
                self.timeout()
            };
            for token in self.poller.wait(timeout)? {
                self.woken(token)?;
            }
            self.check_times(Instant::now());
            busy = false;
            for _ in 0..ROUNDS {
                let received = match self.receive()? {
                    Progress::Over => {
                        // Nobody is left who could ask for it.
                        self.program.kill();
                        return Ok(());
                    }
                    Progress::Some => true,
                    Progress::None => false,
                };
                busy = self.pump()? || received;
                if !busy {
                    break;
                }
            }
            if self.is_time_to_power_off(Instant::now()) {
                self.sessions.clear();
                self.machine.power_off();
                return Ok(());
            }
        }
    }

    fn woken(&mut self, token: Token) -> io::Result<()> {
        match token {
            Token::Port => self.connection.woken(),
            Token::Listener => self.accept()?,
            Token::Log => {}
            Token::LogListener => self.log.accept(&self.poller)?,
            Token::Program => self.program.woken(),
            Token::Session(call) => {
                if let Some(exec) = self.sessions.get_mut(&call).and_then(Session::as_exec) {
                    exec.woken();
                }
                if let Some(resume) = self.resume.as_mut().filter(|resume| resume.call == call) {
                    resume.hook.woken();
                }
                if let Some(rehearsal) = self.rehearsal.as_mut().filter(|one| one.call == call) {
                    rehearsal.command.woken();
                }
            }
            Token::Signals => {
                for (pid, status) in self.children.reap_all() {
                    self.process_ended(pid, status);
                }
            }
            Token::Child(pid) => {
                if let Some(status) = self.children.reap(pid) {
                    self.process_ended(pid, status);
                }
            }
        }
        Ok(())
    }

    /// Takes the newest connection in place of the one there is.
    fn accept(&mut self) -> io::Result<()> {
        if let Hangup::Accept(listener) = &self.hangup
            && let Some(connection) = listener.accept()
        {
            self.disconnected();
            self.poller.watch(&connection, Token::Port)?;
            self.connection.replace(Some(connection));
        }
        Ok(())
    }

    fn process_ended(&mut self, pid: u32, status: ExitStatus) {
        if self.program.pid() == Some(pid) {
            self.program_ended(status);
            return;
        }
        if let Some(exec) = self.commands().find(|exec| exec.pid() == Some(pid)) {
            exec.exited(status);
        }
        // An orphan of the machine, or a command whose session is gone.
    }

    /// All commands that run, the agent's own included.
    fn commands(&mut self) -> impl Iterator<Item = &mut Exec> {
        let hook = self.resume.as_mut().map(|resume| &mut resume.hook);
        let stand_in = self.rehearsal.as_mut().map(|one| &mut one.command);
        self.sessions
            .values_mut()
            .filter_map(Session::as_exec)
            .chain(hook)
            .chain(stand_in)
    }

    /// Reads once from the host and does what it says.
    fn receive(&mut self) -> io::Result<Progress> {
        match self.connection.receive()? {
            Received::Nothing => Ok(Progress::None),
            Received::HungUp => match &self.hangup {
                Hangup::Wait => {
                    self.absent_since.get_or_insert_with(Instant::now);
                    Ok(Progress::None)
                }
                Hangup::Return => {
                    self.disconnected();
                    Ok(Progress::Over)
                }
                Hangup::Accept(_) => {
                    self.disconnected();
                    self.connection.replace(None);
                    Ok(Progress::Some)
                }
            },
            Received::Messages(messages) => {
                self.absent_since = None;
                // A damaged frame is the end of what another connection left behind.
                for message in messages.into_iter().flatten() {
                    self.handle(message);
                }
                Ok(Progress::Some)
            }
        }
    }

    /// Ends what the host that has gone had begun. A host that came back meanwhile has done that
    /// with its Hello.
    fn check_absence(&mut self, now: Instant) {
        if self
            .absent_since
            .is_some_and(|since| now.saturating_duration_since(since) >= ABSENCE)
        {
            self.absent_since = None;
            if self.connection.is_hung_up() {
                self.disconnected();
            }
        }
    }

    fn disconnected(&mut self) {
        self.greeted = false;
        self.end_sessions();
        self.connection.hang_up();
    }

    /// Dropping a session kills its command and removes its half-made file.
    fn end_sessions(&mut self) {
        self.sessions.clear();
        self.resume = None;
        self.rehearsal = None;
    }

    /// One step of everything that has something to say. `true` when there was something.
    fn pump(&mut self) -> io::Result<bool> {
        let mut progress = self.program.pump(&mut self.log);
        self.log.flush()?;
        progress |= self.step_resume();
        progress |= self.step_rehearsal();
        let mut over = Vec::new();
        for (call, session) in &mut self.sessions {
            if self.connection.is_full() {
                break;
            }
            match session.step(*call) {
                Outcome::Send(message) => {
                    self.connection.send(&message);
                    progress = true;
                }
                Outcome::Last(message) => {
                    self.connection.send(&message);
                    over.push(*call);
                    progress = true;
                }
                Outcome::Idle => {}
            }
        }
        for call in over {
            self.sessions.remove(&call);
        }
        self.connection.flush()?;
        Ok(progress)
    }

    fn timeout(&self) -> Option<Duration> {
        let sessions = self.sessions.values().filter_map(Session::next_time);
        let hook = self
            .resume
            .as_ref()
            .and_then(|resume| resume.hook.next_time());
        let stand_in = self
            .rehearsal
            .as_ref()
            .and_then(|rehearsal| rehearsal.command.next_time());
        let next = sessions
            .chain(hook)
            .chain(stand_in)
            .chain(self.ending.next_time())
            .chain(self.absent_since.map(|since| since + ABSENCE))
            .min()?;
        // The clock that was looked at before the work is a little behind; a millisecond more saves
        // a useless round.
        Some(next.saturating_duration_since(Instant::now()) + Duration::from_millis(1))
    }

    fn check_times(&mut self, now: Instant) {
        for exec in self.commands() {
            exec.check_time(now);
        }
        self.check_ending(now);
        self.check_absence(now);
    }

    fn send(&mut self, message: &ToHost) {
        if self.greeted {
            self.connection.send(message);
        }
    }
}

enum Progress {
    Some,
    None,
    Over,
}
