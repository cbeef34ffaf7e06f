//! A running Firecracker.
//!
//! The handle holds a pidfd and the run directory; each question is a connection of its own. Dropping the handle leaves
//! the machine running.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use memory::{LoadedRam, Loader};
use rustix::process::Signal;
use tokio::time::timeout;

use super::api::Api;
use super::app_log::AppLog;
use super::calls::{self, Call};
use super::connection::Connections;
use super::jail;
use super::layout::{API, LOG, NAMES, RAM_FD};
use super::start::ended;
use super::vsock;
use crate::machine::{Record, RunDir, log};
use crate::process::Process;
use crate::{
    ExitReason, GuestStream, MappedRam, MemoryReport, ProcessId, Snapshots, Vm, VmStatus, VmmError,
};

/// For a question about the status.
const STATUS_DEADLINE: Duration = Duration::from_millis(500);

/// For a call that takes a millisecond when all is well.
pub(super) const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// For Firecracker to end after it was asked to.
const QUIT_DEADLINE: Duration = Duration::from_secs(10);

/// For a killed process to be gone; the kernel has its memory to free.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct FirecrackerVm {
    run_dir: Arc<RunDir>,
    process: Arc<Process>,
    record: Record,
    /// Keeps the loader's memory of the RAM alive as long as the machine maps it.
    loaded: Option<Arc<LoadedRam>>,
    pub(super) loader: Arc<Loader>,
    /// A second capture without a run in between is a mistake of the caller.
    pub(super) captured: AtomicBool,
    /// Takes the output of the program, from when the machine runs or was adopted.
    app_log: OnceLock<AppLog>,
    /// With the agent.
    connections: Connections,
    settled: Arc<vsock::Settled>,
    /// What the machine does, after a call of this handle: nobody else makes any.
    known: Mutex<Known>,
}

/// What a handle knows of its machine.
#[derive(Debug, Default)]
struct Known {
    status: Option<VmStatus>,
    /// Rises with every call: an answer that was asked for before one says nothing about the time after it.
    calls: u64,
}

impl FirecrackerVm {
    pub(super) fn new(
        run_dir: RunDir,
        process: Process,
        record: Record,
        loaded: Option<Arc<LoadedRam>>,
        loader: Arc<Loader>,
    ) -> Self {
        let captured = AtomicBool::new(false);
        Self {
            run_dir: Arc::new(run_dir),
            process: Arc::new(process),
            record,
            loaded,
            loader,
            captured,
            app_log: OnceLock::new(),
            connections: Connections::default(),
            settled: Arc::new(vsock::Settled::unknown()),
            known: Mutex::default(),
        }
    }

    /// Begins to take the output of the program. Needs the runtime.
    pub(super) fn follow_output(&self) {
        // A machine of an earlier version says nowhere where its output goes, and its agent gives none.
        if let Some(log) = self.record.app_log.clone() {
            let process = Arc::clone(&self.process);
            let ended = async move {
                process.exited().await;
            };
            let (run_dir, settled) = (Arc::clone(&self.run_dir), Arc::clone(&self.settled));
            self.app_log
                .get_or_init(|| AppLog::follow(run_dir, settled, log, ended));
        }
    }

    /// All connections with the guest have lost their other end.
    pub(super) fn connections_ended(&self) {
        self.settled.not_any_more();
        self.connections.end();
        if let Some(log) = self.app_log.get() {
            log.reconnect();
        }
    }

    /// The machine does this since the last call.
    pub(super) fn learn(&self, status: Option<VmStatus>) {
        let mut known = self.known();
        known.status = status;
        known.calls += 1;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a call after which the machine does `status`; whether it does is open if the call fails.
    async fn bring(&self, call: &Call, status: VmStatus) -> Result<(), VmmError> {
        self.learn(None);
        self.call(call).await?;
        self.learn(Some(status));
        Ok(())
    }

    /// Asks Firecracker.
    async fn ask_status(&self) -> Result<VmStatus, VmmError> {
        let asked = timeout(STATUS_DEADLINE, async {
            self.api().await?.status(STATUS_DEADLINE).await
        });
        tokio::select! {
            biased;
            reason = self.process.exited() => Err(ended(reason)),
            answer = asked => answer.unwrap_or(Err(VmmError::Timeout { what: "the status", after: STATUS_DEADLINE })),
        }
    }

    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    pub(super) fn process_ref(&self) -> &Process {
        &self.process
    }

    pub(super) fn shared_process(&self) -> Arc<Process> {
        Arc::clone(&self.process)
    }

    pub(super) fn run_dir(&self) -> &Path {
        self.run_dir.path()
    }

    pub(super) fn files(&self) -> &RunDir {
        &self.run_dir
    }

    pub(super) fn loaded(&self) -> Option<&Arc<LoadedRam>> {
        self.loaded.as_ref()
    }

    /// A new connection to the API. The caller sets the deadline.
    pub(super) async fn api(&self) -> Result<Api, VmmError> {
        Api::start(self.run_dir.connect(API).await?).await
    }

    /// Makes a call that takes a moment, unless the process ends first.
    async fn call(&self, call: &Call) -> Result<(), VmmError> {
        self.call_within(CALL_DEADLINE, call).await
    }

    /// Makes a call, unless the process ends first.
    pub(super) async fn call_within(
        &self,
        deadline: Duration,
        call: &Call,
    ) -> Result<(), VmmError> {
        let made = timeout(deadline, async {
            self.api().await?.run(call, deadline).await
        });
        tokio::select! {
            biased;
            reason = self.process.exited() => Err(ended(reason)),
            made = made => made.unwrap_or(Err(VmmError::Timeout { what: call.path, after: deadline })),
        }
    }

    /// Kills the process, waits for its end and removes what it left.
    pub(super) async fn destroy(&self) -> Result<ExitReason, VmmError> {
        self.process
            .kill()
            .map_err(VmmError::io("kill the machine in", self.run_dir.path()))?;
        let reason = timeout(KILL_DEADLINE, self.process.exited())
            .await
            .map_err(|_| VmmError::Timeout {
                what: "the end of a killed VMM",
                after: KILL_DEADLINE,
            })?;
        clean(self.run_dir.path(), Some(&self.record));
        Ok(reason)
    }

    /// Its end if that is near: a connection is lost a moment before.
    async fn near_end(&self, deadline: Duration) -> Option<ExitReason> {
        timeout(deadline, self.process.exited()).await.ok()
    }
}

/// Removes what a machine that has ended left, after its log was added to the one that stays. The log of a jailed one
/// has ended with it.
pub(super) fn clean(run_dir: &Path, record: Option<&Record>) {
    let said = log::since(&run_dir.join(LOG), 0);
    if let Some(record) = record.filter(|_| !said.is_empty()) {
        let added = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&record.log)
            .and_then(|mut file| file.write_all(said.as_bytes()));
        if let Err(error) = added {
            tracing::warn!(%error, log = %record.log.display(), "cannot keep what a VMM logged");
        }
    }
    clean_directory(run_dir);
    RunDir::clean(run_dir, &NAMES);
}

/// Frees what a VMM's own log in its run directory takes on disk, once that is more than `limit` bytes: a guest can make
/// Firecracker log without end. What it says afterwards is kept; it does not append, so that comes behind a hole.
pub fn trim_log(run_dir: &Path, limit: u64) -> std::io::Result<()> {
    let path = run_dir.join(LOG);
    let taken = match std::fs::symlink_metadata(&path) {
        Ok(log) if log.is_file() => log.blocks() * 512,
        Ok(_) => 0,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    if taken <= limit {
        return Ok(());
    }
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)?
        .set_len(0)
}

/// Removes what an earlier run left: its sockets would make Firecracker fail.
pub(super) fn clean_directory(run_dir: &Path) {
    for name in NAMES {
        RunDir::remove(run_dir, name);
    }
    jail::clean(run_dir);
}

/// The run directory as the machine of `record` uses it.
pub(super) fn open_run_dir(
    path: &Path,
    record: &Record,
    process: ProcessId,
) -> Result<RunDir, VmmError> {
    match record.jail_uid {
        Some(_) => Ok(RunDir::of_jailed(path, process.pid)),
        None => RunDir::open(path),
    }
}

/// Descriptor with the RAM of the image.
pub(super) fn ram_descriptor(record: &Record) -> i32 {
    match record.jail_uid {
        Some(_) => 0,
        None => RAM_FD,
    }
}

/// The end of what the VMM and its launcher said in this run.
pub(super) fn last_words(run_dir: &Path, record: &Record) -> String {
    let mut said = log::since(&record.log, record.log_start);
    said.push_str(&log::since(&run_dir.join(LOG), 0));
    log::quote(&said)
}

#[async_trait]
impl Vm for FirecrackerVm {
    fn process(&self) -> ProcessId {
        self.process.id()
    }

    async fn status(&self) -> Result<VmStatus, VmmError> {
        let (known, calls) = {
            let known = self.known();
            (known.status, known.calls)
        };
        if let Some(known) = known
            && !self.process.has_ended().is_ok_and(|ended| ended)
        {
            return Ok(known);
        }
        let answer = self.ask_status().await;
        if let Ok(status @ (VmStatus::Running | VmStatus::Paused)) = &answer {
            let mut known = self.known();
            if known.calls == calls {
                known.status = Some(*status);
            }
        }
        let reason = match &answer {
            Ok(_) => None,
            Err(VmmError::Exited { reason, .. }) if *reason != ExitReason::Unknown => Some(*reason),
            Err(_) => self.near_end(STATUS_DEADLINE).await,
        };
        match reason {
            // A guest that powers off ends Firecracker, and nothing else ends it with this code.
            Some(ExitReason::Code(0)) => Ok(VmStatus::Shutdown),
            Some(reason) => Err(ended(reason)),
            None => answer,
        }
    }

    async fn resume(&self) -> Result<(), VmmError> {
        self.bring(&calls::resume(), VmStatus::Running).await?;
        self.captured.store(false, Ordering::Release);
        Ok(())
    }

    async fn pause(&self) -> Result<(), VmmError> {
        self.bring(&calls::pause(), VmStatus::Paused).await
    }

    /// Firecracker has no call for it. Once the CPUs stand still nothing is under way on the disk, which it writes
    /// without a cache of its own, and a hang-up makes it exit.
    async fn quit(&self) -> Result<(), VmmError> {
        let paused = self.pause().await;
        let asked = self.process.signal(Signal::HUP);
        if paused.is_err()
            || asked.is_err()
            || timeout(QUIT_DEADLINE, self.process.exited()).await.is_err()
        {
            tracing::debug!(
                pid = self.process.id().pid,
                "the VMM does not quit and is killed"
            );
        }
        self.destroy().await.map(drop)
    }

    async fn kill(&self) -> Result<(), VmmError> {
        self.destroy().await.map(drop)
    }

    async fn exited(&self) -> ExitReason {
        self.process.exited().await
    }

    async fn powered_off(&self) {
        self.process.exited().await;
    }

    async fn dial(&self, deadline: Duration) -> Result<GuestStream, VmmError> {
        tokio::select! {
            connected = timeout(deadline, vsock::connect(&self.run_dir, &self.settled)) => match connected {
                Ok(stream) => Ok(Box::new(self.connections.add(stream?))),
                Err(_) => Err(VmmError::Timeout { what: "connecting to the guest", after: deadline }),
            },
            reason = self.process.exited() => Err(ended(reason)),
        }
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        Some(self)
    }

    fn memory(&self) -> Option<&dyn MemoryReport> {
        Some(self)
    }

    fn mapped_ram(&self) -> Option<&dyn MappedRam> {
        self.loaded.is_some().then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_log_that_takes_much_room_is_freed_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        trim_log(dir.path(), 4096).unwrap();
        // Open as Firecracker has it: it writes where it was.
        let log = std::fs::File::create(dir.path().join(LOG)).unwrap();
        log.write_all_at(&[b'x'; 100_000], 0).unwrap();
        let taken = || log.metadata().unwrap().blocks() * 512;
        trim_log(dir.path(), 200_000).unwrap();
        assert!(taken() >= 100_000);
        trim_log(dir.path(), 4096).unwrap();
        assert_eq!(taken(), 0);
        log.write_all_at(b"last words", 100_000).unwrap();
        trim_log(dir.path(), 4096).unwrap();
        assert_eq!(log::since(&dir.path().join(LOG), 0), "last words");
    }
}
