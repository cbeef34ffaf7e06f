//! Both kinds of agents behind one face, and shorthands for talking to them.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use agent::{Channel, Enclosure, Listener, Log, Machine, Peers, Reaping, Server, StandIn};
use guest::fake::FakeAgent;
use guest::{
    Events, ExecOutput, ExecSession, ExecSpec, ExitStatus, Failure, FailureKind, Identity, Link,
    LinkError, MIN_ENTROPY, Output, StartSpec,
};
use protocol::{Hello, ToGuest, VERSION_MAX, VERSION_MIN, encode};
use tempfile::NamedTempFile;
use tokio::net::UnixStream;

use crate::address::{self, Address};

/// No test waits longer for anything. Long enough for a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// An agent to test, with the commands that do the same on each kind.
pub(crate) struct Target {
    kind: Kind,
    /// The host's end of the channel.
    pub(crate) stream: Option<UnixStream>,
    directory: tempfile::TempDir,
    server: Option<JoinHandle<()>>,
    /// Where the agent takes connections, if it takes more than one.
    address: Option<Address>,
}

impl Drop for Target {
    /// Waits for the agent to end, because it then kills what it started: one with a single channel
    /// when it notices that its host has gone, another one when it is told.
    fn drop(&mut self) {
        self.stream = None;
        let Some(server) = self.server.take() else {
            return;
        };
        if let Some(address) = &self.address {
            let shutdown = ToGuest::Shutdown {
                call: 1,
                signal: Some(9),
                grace_ms: 0,
            };
            // One whose machine was switched off has ended already.
            let _ = address
                .connect()
                .and_then(|mut last| last.write_all(&frames(&[hello(99), shutdown])));
        }
        server.join().unwrap();
    }
}

enum Kind {
    Fake(FakeAgent),
    Real,
}

/// A machine that must not be changed: the one the tests run on. Its enclosure is a file of process
/// ids, and it stops their groups by signals.
struct TestMachine {
    pids: NamedTempFile,
    enclosure: Enclosure,
}

impl TestMachine {
    fn new() -> Self {
        let pids = NamedTempFile::new().unwrap();
        let file = File::options().append(true).open(pids.path()).unwrap();
        TestMachine {
            pids,
            enclosure: Enclosure::new(file.into()),
        }
    }

    fn signal_all(&self, signal: &str) -> Vec<String> {
        let pids = std::fs::read_to_string(self.pids.path()).unwrap();
        let pids: Vec<String> = pids.lines().map(str::to_owned).collect();
        for pid in &pids {
            // Most have ended.
            let mut kill = Command::new("kill");
            kill.args([signal, "--", &format!("-{pid}")])
                .stderr(Stdio::null());
            kill.status().unwrap();
        }
        pids
    }
}

impl Machine for TestMachine {
    fn enclosure(&self) -> Option<&Enclosure> {
        Some(&self.enclosure)
    }
    fn freeze(&mut self) -> Result<(), Failure> {
        let runs = |pid: &String| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ")
                .is_some_and(|(_, rest)| !rest.starts_with(['T', 'Z']))
        };
        let begun = Instant::now();
        let pids = self.signal_all("-STOP");
        while pids.iter().any(runs) {
            assert!(begun.elapsed() < PATIENCE, "a process does not stop");
            std::thread::yield_now();
        }
        Ok(())
    }
    fn thaw(&mut self) -> Result<(), Failure> {
        self.signal_all("-CONT");
        Ok(())
    }
    fn run_ahead(&mut self, _: bool) {}
    fn set_up(&mut self, _: &StartSpec) -> Result<(), Failure> {
        Ok(())
    }
    fn assume(&mut self, _: &Identity) -> Result<(), Failure> {
        Ok(())
    }
    fn rehearse(&mut self) -> Result<(), Failure> {
        Ok(())
    }
    fn stand_in(&self) -> StandIn {
        StandIn {
            argv: strings(&["true"]),
            enclosure: None,
        }
    }
    fn sync(&mut self) {}
    fn power_off(&mut self) {}
}

impl Target {
    /// The fake, in memory.
    pub(crate) fn fake() -> Self {
        let (stream, theirs) = UnixStream::pair().unwrap();
        let fake = FakeAgent::new();
        let served = fake.clone();
        tokio::spawn(async move { served.serve(theirs).await });
        Self::new(Kind::Fake(fake), stream)
    }

    /// The agent's own server, in a thread of this process.
    pub(crate) fn real() -> Self {
        Self::real_with_log(None)
    }

    pub(crate) fn real_with_log(log: Option<OwnedFd>) -> Self {
        let (ours, theirs) = StdStream::pair().unwrap();
        let log = log.map_or(Log::Nowhere, Log::Stream);
        Self::serve(Channel::Stream(theirs.into()), log, ours)
    }

    /// The same, taking connections.
    pub(crate) fn listening() -> Self {
        let (listener, address) = address::unix(Peers::Anybody);
        Self::listening_at(listener, address)
    }

    /// The same, taking connections of vsock. `None`, and a word about it, where the kernel has no
    /// vsock that leads back to itself.
    pub(crate) fn vsock() -> Option<Self> {
        let (listener, address) = address::vsock(Peers::Anybody)?;
        Some(Self::listening_at(listener, address))
    }

    fn listening_at(listener: Listener, address: Address) -> Self {
        let stream = address.connect().unwrap();
        let mut target = Self::serve(Channel::Listener(listener), Log::Nowhere, stream);
        target.address = Some(address);
        target
    }

    /// An agent whose end nobody waits for: it cannot be told.
    pub(crate) fn serve_for_ever(listener: Listener) {
        let channel = Channel::Listener(listener);
        let server = Server::new(TestMachine::new(), channel, Log::Nowhere, Reaping::Own).unwrap();
        std::thread::spawn(move || server.run());
    }

    fn serve(channel: Channel, log: Log, ours: StdStream) -> Self {
        let server = Server::new(TestMachine::new(), channel, log, Reaping::Own).unwrap();
        let server = std::thread::spawn(move || server.run().unwrap());
        let mut target = Self::new(Kind::Real, asynchronous(ours));
        target.server = Some(server);
        target
    }

    /// Makes another connection, which the next [`Target::connect`] takes. An agent with too many that wait
    /// refuses it on vsock, and its host tries again.
    pub(crate) fn dial(&mut self) {
        let address = self.address.as_ref();
        let address = address.expect("an agent that takes connections");
        let begun = Instant::now();
        let stream = loop {
            match address.connect() {
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                    assert!(begun.elapsed() < PATIENCE, "the agent takes no connection");
                    std::thread::yield_now();
                }
                connected => break connected.unwrap(),
            }
        };
        self.stream = Some(asynchronous(stream));
    }

    fn new(kind: Kind, stream: UnixStream) -> Self {
        Target {
            kind,
            stream: Some(stream),
            directory: tempfile::tempdir().unwrap(),
            server: None,
            address: None,
        }
    }

    pub(crate) async fn connect(&mut self) -> (Link, Events) {
        Link::connect(self.stream.take().unwrap(), PATIENCE)
            .await
            .unwrap()
    }

    /// A connection to a machine whose program runs.
    pub(crate) async fn started(&mut self) -> Link {
        let (link, _events) = self.connect().await;
        link.start(start_spec(&["sleep", "600"]), PATIENCE)
            .await
            .unwrap();
        link
    }

    /// A path only this test uses.
    pub(crate) fn path(&self, name: &str) -> String {
        self.directory
            .path()
            .join(name)
            .to_str()
            .unwrap()
            .to_owned()
    }

    pub(crate) fn exit_with(&self, code: i32) -> Vec<String> {
        match self.kind {
            Kind::Fake(_) => strings(&["exit", &code.to_string()]),
            Kind::Real => strings(&["sh", "-c", &format!("exit {code}")]),
        }
    }

    /// Makes a file longer, for ever.
    pub(crate) fn grow(&self, path: &str) -> Vec<String> {
        match self.kind {
            Kind::Fake(_) => strings(&["grow", path]),
            Kind::Real => {
                let script = format!("while :; do echo >> {path}; done");
                strings(&["sh", "-c", &script])
            }
        }
    }

    pub(crate) fn zeros(&self, count: usize) -> Vec<String> {
        match self.kind {
            Kind::Fake(_) => strings(&["zeros", &count.to_string()]),
            Kind::Real => strings(&["head", "-c", &count.to_string(), "/dev/zero"]),
        }
    }

    /// A program that ends with `code` once the machine was started.
    pub(crate) async fn start_and_end_program(&self, link: &Link, code: i32) {
        match &self.kind {
            Kind::Fake(fake) => {
                link.start(start_spec(&["sleep", "600"]), PATIENCE)
                    .await
                    .unwrap();
                fake.exit_program(ExitStatus::exited(code));
            }
            Kind::Real => {
                let spec = StartSpec {
                    argv: self.exit_with(code),
                    ..start_spec(&[])
                };
                link.start(spec, PATIENCE).await.unwrap();
            }
        }
    }
}

fn asynchronous(stream: StdStream) -> UnixStream {
    stream.set_nonblocking(true).unwrap();
    UnixStream::from_std(stream).unwrap()
}

pub(crate) fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

pub(crate) fn start_spec(argv: &[&str]) -> StartSpec {
    StartSpec {
        instance_id: "id".into(),
        hostname: "box".into(),
        machine_id: [1; 16],
        entropy: vec![1; MIN_ENTROPY],
        wall_clock_ns: 1,
        argv: strings(argv),
        env: vec![("FROM_IMAGE".into(), "yes".into())],
        workdir: String::new(),
        user: String::new(),
        stop_signal: 15,
        network: None,
    }
}

pub(crate) fn identity(hostname: &str) -> Identity {
    Identity {
        instance_id: hostname.into(),
        hostname: hostname.into(),
        machine_id: [2; 16],
        entropy: vec![2; MIN_ENTROPY],
        wall_clock_ns: 2,
        new_machine: true,
        post_fork: None,
        network: None,
    }
}

pub(crate) fn command(argv: &[&str]) -> ExecSpec {
    ExecSpec {
        argv: strings(argv),
        ..ExecSpec::default()
    }
}

/// Everything a command said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) status: ExitStatus,
}

impl Said {
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.stdout).unwrap()
    }
}

/// Runs a command without input to its end.
pub(crate) async fn run(link: &Link, spec: ExecSpec) -> Said {
    let session = link.exec(spec).await.unwrap();
    finish(session).await
}

/// Ends the input of a session and reads it to its end.
pub(crate) async fn finish(session: ExecSession) -> Said {
    let (mut input, output) = session.split();
    // The command may have ended already.
    let _ = input.eof().await;
    let said = read_all(output).await;
    drop(input);
    said
}

pub(crate) async fn read_all(mut output: ExecOutput) -> Said {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        let next = tokio::time::timeout(PATIENCE, output.next())
            .await
            .expect("output in time")
            .unwrap();
        match next.expect("an exit") {
            Output::Stdout(bytes) => stdout.extend_from_slice(&bytes),
            Output::Stderr(bytes) => stderr.extend_from_slice(&bytes),
            Output::Exit(status) => {
                return Said {
                    stdout,
                    stderr,
                    status,
                };
            }
        }
    }
}

/// The agent refused, for this kind of reason.
#[track_caller]
pub(crate) fn refused(error: LinkError, kind: FailureKind) {
    assert_eq!(
        error.failure().unwrap_or_else(|| panic!("{error:?}")).kind,
        kind,
        "{error:?}"
    );
}

/// What a host before this one wrote.
pub(crate) fn frames(messages: &[ToGuest]) -> Vec<u8> {
    let mut out = Vec::new();
    for message in messages {
        encode(message, &mut out).unwrap();
    }
    out
}

pub(crate) fn hello(nonce: u64) -> ToGuest {
    ToGuest::Hello(Hello {
        nonce,
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
    })
}
