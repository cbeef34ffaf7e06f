//! One connection to a fake agent.

use std::collections::HashMap;
use std::sync::Arc;

use protocol::{
    CallId, Decoder, ExecSpec, ExitStatus, Failure, FailureKind, GuestPhase, Hello, HelloAck,
    HookResult, Identity, MAX_SESSIONS, ToGuest, ToHost, Unreported, UploadSpec, VERSION_MAX,
    VERSION_MIN,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::mpsc;

use super::agent::Shared;
use super::sessions::{self, Outbox, SessionHandle};
use super::writer::write;

/// Messages that may wait to be written.
const OUTBOX: usize = 16;

struct Connection {
    shared: Arc<Shared>,
    outbox: Outbox,
    /// Hands the writer the other end of a new outbox.
    queues: mpsc::Sender<mpsc::Receiver<ToHost>>,
    greeted: bool,
    /// The machine is to be switched off as soon as the last words are written.
    ending: bool,
    sessions: HashMap<CallId, SessionHandle>,
    uploads: HashMap<CallId, Upload>,
}

struct Upload {
    spec: UploadSpec,
    bytes: Vec<u8>,
    unreported: Unreported,
}

/// Serves until the stream ends.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Send + 'static>(
    stream: S,
    shared: Arc<Shared>,
) {
    let (mut reader, writer) = tokio::io::split(stream);
    let (outbox, queue) = mpsc::channel(OUTBOX);
    let (queues, replaced) = mpsc::channel(1);
    let mut exits = shared.exits.subscribe();
    let mut connection = Connection {
        shared,
        outbox,
        queues,
        greeted: false,
        ending: false,
        sessions: HashMap::new(),
        uploads: HashMap::new(),
    };
    let work = async {
        let mut decoder = Decoder::default();
        let mut buffer = vec![0; 16 * 1024];
        loop {
            tokio::select! {
                Ok(exit) = exits.recv() => connection.send(ToHost::ProgramExited(exit)).await,
                read = reader.read(&mut buffer) => {
                    let Ok(len @ 1..) = read else { return };
                    let mut input = &buffer[..len];
                    while let Some(message) = decoder.decode(&mut input) {
                        if let Ok(message) = message {
                            connection.handle(message).await;
                            if connection.ending {
                                return;
                            }
                        }
                    }
                }
            }
        }
    };
    let writer = write(writer, queue, replaced);
    tokio::pin!(writer);
    tokio::select! {
        () = work => {}
        () = &mut writer => return,
    }
    if connection.ending {
        let shared = Arc::clone(&connection.shared);
        // The writer ends when the last sender is gone.
        drop(connection);
        writer.await;
        shared.power_off();
    }
}

impl Connection {
    async fn send(&mut self, message: ToHost) {
        if self.greeted {
            // The writer ends only together with this connection.
            let _ = self.outbox.send(message).await;
        }
    }

    async fn handle(&mut self, message: ToGuest) {
        if let ToGuest::Hello(hello) = message {
            self.hello(&hello).await;
        } else if self.greeted
            && let Some(answer) = self.request(message).await
        {
            self.send(answer).await;
        }
    }

    async fn hello(&mut self, hello: &Hello) {
        self.sessions.clear();
        self.uploads.clear();
        self.renew_outbox().await;
        self.greeted = true;
        let version = hello.version_max.min(VERSION_MAX);
        if version < hello.version_min.max(VERSION_MIN) {
            let refused = ToHost::HelloRefused {
                nonce: hello.nonce,
                version_min: VERSION_MIN,
                version_max: VERSION_MAX,
            };
            self.send(refused).await;
            self.greeted = false;
            return;
        }
        let (phase, frozen) = {
            let state = self.shared.state();
            (state.phase.clone(), state.frozen)
        };
        let exit = match &phase {
            GuestPhase::Exited(exit) => Some(exit.clone()),
            GuestPhase::Waiting | GuestPhase::Started { .. } => None,
        };
        let agent = "fake".to_owned();
        self.send(ToHost::HelloAck(HelloAck {
            nonce: hello.nonce,
            version,
            agent,
            phase,
            frozen,
        }))
        .await;
        if let Some(exit) = exit {
            self.send(ToHost::ProgramExited(exit)).await;
        }
    }

    /// Aborting a session does not stop it in the middle of a send: what it still says must go where
    /// nobody reads, for calls of the new connection have the same numbers.
    async fn renew_outbox(&mut self) {
        let (outbox, queue) = mpsc::channel(OUTBOX);
        // The writer ends only together with this connection, or when the last sender of its queue
        // is gone: therefore the old one is dropped after it has the new queue.
        let _ = self.queues.send(queue).await;
        self.outbox = outbox;
    }

    async fn request(&mut self, message: ToGuest) -> Option<ToHost> {
        match message {
            ToGuest::Hello(_) => None,
            ToGuest::Start { call, spec } => {
                let started = self.shared.state().start(*spec);
                Some(answer(
                    call,
                    started.map(|pid| ToHost::Started { call, pid }),
                ))
            }
            ToGuest::Resume {
                call,
                nonce,
                identity,
            } => {
                let resumed = self.resume(call, *identity).await;
                Some(answer(
                    call,
                    resumed.map(|hook| ToHost::Resumed { call, nonce, hook }),
                ))
            }
            ToGuest::Quiesce { call } => {
                self.shared.set_frozen(true);
                Some(ToHost::Done { call })
            }
            ToGuest::Thaw { call } => {
                self.shared.set_frozen(false);
                Some(ToHost::Done { call })
            }
            ToGuest::Rehearse { call } => Some(self.rehearse(call)),
            ToGuest::Stat { call, path, follow } => {
                let state = self.shared.state();
                let info = state
                    .require_started()
                    .and_then(|()| state.files.stat(&path, follow));
                Some(answer(call, info.map(|info| ToHost::Path { call, info })))
            }
            ToGuest::Exec { call, spec } => {
                if let Err(failure) = self.admit_change() {
                    return Some(ToHost::Failed { call, failure });
                }
                let session =
                    sessions::exec(call, *spec, Arc::clone(&self.shared), self.outbox.clone());
                self.sessions.insert(call, session);
                None
            }
            ToGuest::Upload { call, spec } => self.open_upload(call, *spec),
            ToGuest::Download { call, path, follow } => {
                let entries = self
                    .admit()
                    .and_then(|()| self.shared.state().files.tree(&path, follow));
                match entries {
                    Ok(entries) => {
                        self.sessions
                            .insert(call, sessions::download(call, entries, self.outbox.clone()));
                        None
                    }
                    Err(failure) => Some(ToHost::Failed { call, failure }),
                }
            }
            ToGuest::Shutdown { call, signal, .. } => {
                self.shut_down(call, signal).await;
                None
            }
            ToGuest::ExitAck { call } => Some(self.acknowledge(call)),
            message => self.session_message(message),
        }
    }

    fn session_message(&mut self, message: ToGuest) -> Option<ToHost> {
        match message {
            ToGuest::Data { call, bytes } => return self.data(call, bytes),
            ToGuest::Eof { call } => {
                if let Some(Upload { spec, bytes, .. }) = self.uploads.remove(&call) {
                    let bytes_written = bytes.len() as u64;
                    let written = self.shared.state().files.write(&spec, bytes);
                    return Some(answer(
                        call,
                        written.map(|()| ToHost::Uploaded {
                            call,
                            bytes_written,
                        }),
                    ));
                }
                if let Some(session) = self.sessions.get_mut(&call) {
                    session.input = None;
                }
            }
            ToGuest::Signal { call, signal } => {
                let session = self.sessions.remove(&call)?;
                if !session.is_over() {
                    return Some(ToHost::ExecExit {
                        call,
                        status: ExitStatus::killed(signal),
                    });
                }
            }
            ToGuest::Cancel { call } => {
                self.sessions.remove(&call);
                self.uploads.remove(&call);
            }
            ToGuest::Credit { call, cost } => {
                if let Some(session) = self.sessions.get(&call) {
                    session.give_credit(cost);
                }
            }
            // A fake terminal has no size; the others are requests.
            _ => {}
        }
        None
    }

    fn data(&mut self, call: CallId, bytes: Vec<u8>) -> Option<ToHost> {
        let cost = ToGuest::Data {
            call,
            bytes: bytes.clone(),
        }
        .cost();
        if let Some(upload) = self.uploads.get_mut(&call) {
            upload.bytes.extend(bytes);
            return upload
                .unreported
                .consumed(cost)
                .map(|cost| ToHost::Credit { call, cost });
        }
        // A full queue means more input than credit; a command that has ended reads no more.
        if let Some(input) = self
            .sessions
            .get(&call)
            .and_then(|session| session.input.as_ref())
        {
            let _ = input.try_send(bytes);
        }
        None
    }

    fn open_upload(&mut self, call: CallId, spec: UploadSpec) -> Option<ToHost> {
        match self
            .admit_change()
            .and_then(|()| self.shared.state().files.check(&spec))
        {
            Ok(()) => {
                self.uploads.insert(
                    call,
                    Upload {
                        spec,
                        bytes: Vec::new(),
                        unreported: Unreported::default(),
                    },
                );
                None
            }
            Err(failure) => Some(ToHost::Failed { call, failure }),
        }
    }

    async fn resume(
        &mut self,
        call: CallId,
        identity: Identity,
    ) -> Result<Option<HookResult>, Failure> {
        let hook = identity.post_fork.clone();
        self.shared.state().assume(identity)?;
        self.shared.set_frozen(false);
        let Some(hook) = hook else { return Ok(None) };
        let timeout_ms = Some(hook.timeout_ms.max(1));
        let spec = ExecSpec {
            argv: hook.argv,
            env: hook.env,
            timeout_ms,
            ..ExecSpec::default()
        };
        let (outbox, mut queue) = mpsc::channel(OUTBOX);
        let mut session = sessions::exec(call, spec, Arc::clone(&self.shared), outbox);
        session.input = None;
        let mut output = Vec::new();
        while let Some(message) = queue.recv().await {
            session.give_credit(message.cost());
            match message {
                ToHost::Data { bytes, .. } => output.extend(bytes),
                ToHost::ExecExit { status, .. } if status.code == 0 => break,
                ToHost::ExecExit { status, .. } => {
                    let kind = if status.timed_out {
                        FailureKind::TimedOut
                    } else {
                        FailureKind::Invalid
                    };
                    return Err(Failure::new(
                        kind,
                        format!("post-fork command ended with {}", status.code),
                    ));
                }
                _ => {}
            }
        }
        Ok(Some(HookResult {
            output,
            duration_ms: 0,
        }))
    }

    async fn shut_down(&mut self, call: CallId, signal: Option<i32>) {
        self.send(ToHost::Done { call }).await;
        let stop_signal = self
            .shared
            .state()
            .start
            .as_ref()
            .map_or(15, |start| start.stop_signal);
        let status = ExitStatus::killed(signal.unwrap_or(stop_signal));
        if let Some(exit) = self.shared.end_program(status) {
            self.send(ToHost::ProgramExited(exit)).await;
        }
        self.shared.set_frozen(false);
        self.ending = true;
    }

    fn rehearse(&self, call: CallId) -> ToHost {
        let rehearsed = self.shared.state().rehearse();
        answer(call, rehearsed.map(|()| ToHost::Done { call }))
    }

    fn acknowledge(&mut self, call: CallId) -> ToHost {
        if !matches!(self.shared.state().phase, GuestPhase::Exited(_)) {
            let failure = Failure::new(FailureKind::Phase, "the program has not ended");
            return ToHost::Failed { call, failure };
        }
        self.ending = true;
        ToHost::Done { call }
    }

    fn admit(&mut self) -> Result<(), Failure> {
        self.shared.state().require_started()?;
        self.sessions.retain(|_, session| !session.is_over());
        if self.sessions.len() + self.uploads.len() >= MAX_SESSIONS {
            return Err(Failure::new(
                FailureKind::Limit,
                format!("{MAX_SESSIONS} sessions are open already"),
            ));
        }
        Ok(())
    }

    /// Room for a session that changes the machine.
    fn admit_change(&mut self) -> Result<(), Failure> {
        self.admit()?;
        self.shared.state().require_running()
    }
}

fn answer(call: CallId, result: Result<ToHost, Failure>) -> ToHost {
    result.unwrap_or_else(|failure| ToHost::Failed { call, failure })
}
