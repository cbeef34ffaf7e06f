//! What the host's messages do.

use std::fs;
use std::path::Path;
use std::time::Duration;

use protocol::{
    CallId, ExecSpec, Failure, FailureKind, Hello, HelloAck, MAX_SESSIONS, StartSpec, ToGuest,
    ToHost, VERSION_MAX, VERSION_MIN,
};

use super::Server;
use crate::account::{self, Account};
use crate::enclosure::Enclosure;
use crate::exec::{ChildEnds, Exec};
use crate::launch::{Launch, launch};
use crate::machine::Machine;
use crate::poller::Token;
use crate::session::{Session, finish_upload};
use crate::{environment, stat};

/// Shell that is run when a command names no program.
const SHELL: &str = "/bin/sh";

/// What commands inherit from the machine's program.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) hostname: String,
    env: Vec<(String, String)>,
    workdir: String,
    user: String,
    pub(super) stop_signal: i32,
}

impl<M: Machine> Server<M> {
    pub(super) fn handle(&mut self, message: ToGuest) {
        if let ToGuest::Hello(hello) = &message {
            self.hello(hello);
        } else if self.greeted {
            self.request(message);
        }
    }

    fn hello(&mut self, hello: &Hello) {
        self.end_sessions();
        self.connection.restart();
        let version = hello.version_max.min(VERSION_MAX);
        self.greeted = version >= hello.version_min.max(VERSION_MIN);
        if !self.greeted {
            self.connection.send(&ToHost::HelloRefused {
                nonce: hello.nonce,
                version_min: VERSION_MIN,
                version_max: VERSION_MAX,
            });
            return;
        }
        self.connection.send(&ToHost::HelloAck(HelloAck {
            nonce: hello.nonce,
            version,
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            phase: self.program.phase(),
            frozen: self.frozen,
        }));
        if let Some(exit) = self.program.exit() {
            self.connection.send(&ToHost::ProgramExited(exit.clone()));
        }
    }

    fn request(&mut self, message: ToGuest) {
        match message {
            ToGuest::Hello(_) => {}
            ToGuest::Start { call, spec } => {
                let result = self.start(*spec).map(|pid| ToHost::Started { call, pid });
                self.answer(call, result);
                self.report_exit();
            }
            ToGuest::Resume {
                call,
                nonce,
                identity,
            } => self.begin_resume(call, nonce, &identity),
            ToGuest::Quiesce { call } => {
                let result = self.quiesce().map(|()| ToHost::Done { call });
                self.answer(call, result);
            }
            ToGuest::Thaw { call } => {
                let result = self.thaw().map(|()| ToHost::Done { call });
                self.answer(call, result);
            }
            ToGuest::Rehearse { call } => self.begin_rehearsal(call),
            ToGuest::Stat { call, path, follow } => {
                let result = self.context().and_then(|_| stat::stat(&path, follow));
                self.answer(call, result.map(|info| ToHost::Path { call, info }));
            }
            ToGuest::Exec { call, spec } => {
                let enclosure = self.machine.enclosure().cloned();
                let session = self
                    .admit_change()
                    .and_then(|()| self.open_exec(call, &spec, enclosure))
                    .map(Session::exec);
                self.open(call, session);
            }
            ToGuest::Upload { call, spec } => {
                let session = self.admit_change().and_then(|()| Session::upload(*spec));
                self.open(call, session);
            }
            ToGuest::Download { call, path, follow } => {
                let session = self.admit().and_then(|()| Session::download(&path, follow));
                self.open(call, session);
            }
            ToGuest::Data { .. }
            | ToGuest::Eof { .. }
            | ToGuest::Resize { .. }
            | ToGuest::Signal { .. }
            | ToGuest::Cancel { .. }
            | ToGuest::Credit { .. } => self.session_message(message),
            ToGuest::Shutdown {
                call,
                signal,
                grace_ms,
            } => {
                self.send(&ToHost::Done { call });
                self.begin_shutdown(signal, Duration::from_millis(grace_ms));
            }
            ToGuest::ExitAck { call } => {
                let result = self.acknowledge().map(|()| ToHost::Done { call });
                self.answer(call, result);
            }
        }
    }

    /// Messages about sessions. Those about a session that has ended crossed its end on the way and
    /// are dropped.
    fn session_message(&mut self, message: ToGuest) {
        let cost = message.cost();
        match message {
            ToGuest::Data { call, bytes } => {
                match self.sessions.get_mut(&call).map(|s| s.data(&bytes, cost)) {
                    Some(Ok(Some(cost))) => self.send(&ToHost::Credit { call, cost }),
                    Some(Err(failure)) => {
                        self.sessions.remove(&call);
                        self.send(&ToHost::Failed { call, failure });
                    }
                    Some(Ok(None)) | None => {}
                }
            }
            ToGuest::Eof { call } => match self.sessions.remove(&call) {
                Some(Session::Upload(upload)) => {
                    let message = finish_upload(*upload, call);
                    self.send(&message);
                }
                Some(mut session) => {
                    if let Some(exec) = session.as_exec() {
                        exec.end_input();
                    }
                    self.sessions.insert(call, session);
                }
                None => {}
            },
            ToGuest::Resize { call, size } => {
                if let Some(session) = self.sessions.get_mut(&call) {
                    session.resize(size);
                }
            }
            ToGuest::Signal { call, signal } => {
                if let Some(exec) = self.sessions.get_mut(&call).and_then(Session::as_exec) {
                    exec.signal(signal);
                }
            }
            ToGuest::Cancel { call } => drop(self.sessions.remove(&call)),
            ToGuest::Credit { call, cost } => {
                if let Some(session) = self.sessions.get_mut(&call) {
                    session.credit(cost);
                }
            }
            ToGuest::Hello(_)
            | ToGuest::Start { .. }
            | ToGuest::Resume { .. }
            | ToGuest::Quiesce { .. }
            | ToGuest::Stat { .. }
            | ToGuest::Exec { .. }
            | ToGuest::Upload { .. }
            | ToGuest::Download { .. }
            | ToGuest::Shutdown { .. }
            | ToGuest::ExitAck { .. }
            | ToGuest::Thaw { .. }
            | ToGuest::Rehearse { .. } => {}
        }
    }

    fn start(&mut self, spec: StartSpec) -> Result<u32, Failure> {
        if !self.program.is_waiting() || self.context.is_some() {
            return Err(Failure::new(
                FailureKind::Phase,
                "a program was started before",
            ));
        }
        self.require_running()?;
        spec.validate()?;
        self.machine.set_up(&spec)?;
        let account = find_account(&spec.user)?;
        let env = environment::build(&spec.hostname, &account.home, false, &[&spec.env]);
        let started = self
            .program
            .start(
                &spec,
                &env,
                &account,
                self.machine.enclosure(),
                &mut self.log,
            )
            .map_err(out_of_resources)?;
        if let Some(output) = self.program.output() {
            self.poller
                .watch(output, Token::Program)
                .map_err(out_of_resources)?;
        }
        if let Some(pid) = self.program.pid() {
            self.children
                .watch(pid, &self.poller)
                .map_err(out_of_resources)?;
        }
        let StartSpec {
            hostname,
            env,
            workdir,
            user,
            stop_signal,
            ..
        } = spec;
        self.context = Some(Context {
            hostname,
            env,
            workdir,
            user,
            stop_signal,
        });
        Ok(started)
    }

    /// What there is only once a machine was started.
    pub(super) fn context(&self) -> Result<&Context, Failure> {
        self.context
            .as_ref()
            .ok_or_else(|| Failure::new(FailureKind::Phase, "no program was started yet"))
    }

    fn admit(&self) -> Result<(), Failure> {
        self.context()?;
        if self.sessions.len() >= MAX_SESSIONS {
            return Err(Failure::new(
                FailureKind::Limit,
                format!("{MAX_SESSIONS} sessions are open already"),
            ));
        }
        Ok(())
    }

    /// Room for a session that changes the machine.
    fn admit_change(&self) -> Result<(), Failure> {
        self.admit()?;
        self.require_running()
    }

    fn open(&mut self, call: CallId, session: Result<Session, Failure>) {
        match session {
            Ok(session) => drop(self.sessions.insert(call, session)),
            Err(failure) => self.send(&ToHost::Failed { call, failure }),
        }
    }

    fn answer(&mut self, call: CallId, result: Result<ToHost, Failure>) {
        let message = result.unwrap_or_else(|failure| ToHost::Failed { call, failure });
        self.send(&message);
    }

    /// Starts a command in `enclosure`. One that cannot be run is a session all the same: it ends
    /// with 126 or 127.
    pub(super) fn open_exec(
        &mut self,
        call: CallId,
        spec: &ExecSpec,
        enclosure: Option<Enclosure>,
    ) -> Result<Exec, Failure> {
        let context = self.context()?;
        let account = find_account(spec.user.as_deref().unwrap_or(&context.user))?;
        let layers: [&[(String, String)]; 2] = [&context.env, &spec.env];
        let env = environment::build(
            &context.hostname,
            &account.home,
            spec.tty.is_some(),
            &layers,
        );
        let workdir = if context.workdir.is_empty() {
            "/"
        } else {
            &context.workdir
        };
        let cwd = spec
            .cwd
            .as_deref()
            .filter(|cwd| !cwd.is_empty())
            .unwrap_or(workdir)
            .to_owned();
        let shell = [SHELL.to_owned()];
        let argv = if spec.argv.is_empty() {
            &shell[..]
        } else {
            &spec.argv
        };

        let (mut exec, ends) = Exec::open(spec.tty, true).map_err(out_of_resources)?;
        for fd in exec.descriptors() {
            self.poller
                .watch(fd, Token::Session(call))
                .map_err(out_of_resources)?;
        }
        let ChildEnds {
            stdin,
            stdout,
            stderr,
        } = ends;
        let terminal = spec.tty.is_some();
        let cwd = Path::new(&cwd);
        match launch(Launch {
            argv,
            env: &env,
            cwd,
            account: &account,
            enclosure: enclosure.as_ref(),
            stdin,
            stdout,
            stderr,
            terminal,
        }) {
            Ok(pid) => {
                exec.started(
                    pid,
                    spec.timeout_ms
                        .filter(|ms| *ms > 0)
                        .map(Duration::from_millis),
                );
                self.children
                    .watch(pid, &self.poller)
                    .map_err(out_of_resources)?;
            }
            Err(why) => exec.not_started(why),
        }
        Ok(exec)
    }
}

/// Looks a user up in the guest's files. Files that cannot be read know nobody, and numbers still
/// work.
fn find_account(user: &str) -> Result<Account, Failure> {
    let read = |path| {
        fs::read(path)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    };
    account::resolve(user, &read("/etc/passwd"), &read("/etc/group"))
}

fn out_of_resources(error: impl Into<std::io::Error>) -> Failure {
    Failure::new(
        FailureKind::Io,
        format!("start a process: {}", error.into()),
    )
}
