//! A running QEMU.
//!
//! The handle holds a pidfd, the run directory, and the QMP connection, which it makes when first needed and again
//! when it was lost. Dropping the handle leaves the machine running.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use memory::{LoadedRam, Run};
use serde_json::Value;
use tokio::time::timeout;

use super::command::RAM_FD;
use super::qmp::Qmp;
use crate::machine::{Mapped, Record, RunDir, blocking};
use crate::pages::{FileId, RamMapping, read_smaps};
use crate::process::{Process, cpu_seconds, page_faults, vms_bytes};
use crate::{
    ExitReason, GuestStream, MappedRam, MemoryReport, MemoryUse, ProcessId, Snapshots, Vm,
    VmStatus, VmmError,
};

/// Socket of the machine protocol.
pub(super) const QMP: &str = "qmp";
/// Socket of the guest's agent.
pub(super) const AGENT: &str = "agent";
/// What the launcher makes in the run directory.
pub(super) const SOCKETS: [&str; 2] = [QMP, AGENT];

/// For a question about the status.
const STATUS_DEADLINE: Duration = Duration::from_millis(500);

/// For a connection to a machine that is up.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// For QEMU to write its buffers and end.
const QUIT_DEADLINE: Duration = Duration::from_secs(10);

/// For a killed process to be gone; the kernel has its memory to free.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// Before a lost connection is tried again while nothing but the guest's end is waited for.
const RECONNECT: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct QemuVm {
    run_dir: RunDir,
    process: Arc<Process>,
    record: Record,
    qmp: tokio::sync::Mutex<Option<Arc<Qmp>>>,
    /// Keeps the loader's memory of the RAM alive as long as the machine maps it.
    loaded: Option<Arc<LoadedRam>>,
    /// A second capture without a run in between would save what the first one has given away.
    pub(super) captured: AtomicBool,
}

impl QemuVm {
    pub(super) fn new(
        run_dir: RunDir,
        process: Process,
        record: Record,
        loaded: Option<Arc<LoadedRam>>,
    ) -> Self {
        let (qmp, captured) = (tokio::sync::Mutex::default(), AtomicBool::new(false));
        Self {
            run_dir,
            process: Arc::new(process),
            record,
            qmp,
            loaded,
            captured,
        }
    }

    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    pub(super) fn process_ref(&self) -> &Process {
        &self.process
    }

    pub(super) fn run_dir(&self) -> &Path {
        self.run_dir.path()
    }

    pub(super) fn loaded(&self) -> Option<Arc<LoadedRam>> {
        self.loaded.clone()
    }

    /// The connection, made if there is none.
    pub(super) async fn connect(&self, deadline: Duration) -> Result<Arc<Qmp>, VmmError> {
        let mut held = self.qmp.lock().await;
        if let Some(qmp) = held.as_ref().filter(|qmp| qmp.is_open()) {
            return Ok(Arc::clone(qmp));
        }
        let stream = timeout(deadline, self.run_dir.connect(QMP))
            .await
            .map_err(|_| VmmError::Timeout {
                what: "connecting to the VMM",
                after: deadline,
            })??;
        let qmp = Arc::new(Qmp::start(stream, deadline).await?);
        *held = Some(Arc::clone(&qmp));
        Ok(qmp)
    }

    pub(super) async fn qmp(&self) -> Result<Arc<Qmp>, VmmError> {
        self.connect(CONNECT_DEADLINE).await
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
        RunDir::clean(self.run_dir.path(), &SOCKETS);
        Ok(reason)
    }

    /// Identity of the memfd that is the guest's RAM.
    pub(super) fn ram_file(&self) -> Result<FileId, VmmError> {
        let path = self.ram_path();
        self.ram_id().map_err(VmmError::io("examine", &path))
    }

    fn ram_id(&self) -> io::Result<FileId> {
        File::open(self.ram_path()).and_then(FileId::of)
    }

    /// The memfd that is the guest's RAM, as this process can open it.
    pub(super) fn ram_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{RAM_FD}", self.process.id().pid))
    }
}

#[async_trait]
impl Vm for QemuVm {
    fn process(&self) -> ProcessId {
        self.process.id()
    }

    async fn status(&self) -> Result<VmStatus, VmmError> {
        let ask = async {
            let qmp = self.connect(STATUS_DEADLINE).await?;
            match qmp.status() {
                Some(status) => Ok(status),
                None => qmp.query_status(STATUS_DEADLINE).await,
            }
        };
        timeout(STATUS_DEADLINE, ask)
            .await
            .unwrap_or(Err(VmmError::Timeout {
                what: "the status",
                after: STATUS_DEADLINE,
            }))
    }

    async fn resume(&self) -> Result<(), VmmError> {
        self.qmp().await?.run("cont", Value::Null).await?;
        self.captured.store(false, Ordering::Release);
        Ok(())
    }

    async fn pause(&self) -> Result<(), VmmError> {
        self.qmp().await?.run("stop", Value::Null).await?;
        Ok(())
    }

    async fn quit(&self) -> Result<(), VmmError> {
        let asked = async {
            self.qmp().await?.run("quit", Value::Null).await?;
            Ok::<_, VmmError>(())
        };
        // QEMU may close the connection before it answers; what counts is that it ends.
        let ended = timeout(QUIT_DEADLINE, async {
            tokio::select! {
                _ = self.process.exited() => {}
                _ = async { asked.await.ok(); self.process.exited().await } => {}
            }
        });
        if ended.await.is_err() {
            tracing::warn!(
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
        let off = async {
            loop {
                if let Ok(qmp) = self.qmp().await
                    && qmp.wait_for(|status| status == VmStatus::Shutdown).await
                {
                    return;
                }
                tokio::time::sleep(RECONNECT).await;
            }
        };
        tokio::select! {
            () = off => {}
            _ = self.process.exited() => {}
        }
    }

    async fn dial(&self, deadline: Duration) -> Result<GuestStream, VmmError> {
        tokio::select! {
            connected = timeout(deadline, self.run_dir.connect(AGENT)) => match connected {
                Ok(stream) => Ok(Box::new(stream?)),
                Err(_) => Err(VmmError::Timeout { what: "connecting to the guest", after: deadline }),
            },
            reason = self.process.exited() => Err(VmmError::Exited { reason, stderr: String::new() }),
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

impl QemuVm {
    fn mapped(&self) -> Mapped {
        Mapped {
            process: Arc::clone(&self.process),
            ram: self.ram_id(),
            ram_bytes: self.record.machine.ram_bytes,
        }
    }
}

#[async_trait]
impl MappedRam for QemuVm {
    async fn touched(&self) -> Result<Vec<Run>, VmmError> {
        self.mapped().touched().await
    }

    async fn enter(&self, runs: Vec<Run>, limit: Duration) -> Result<u64, VmmError> {
        self.mapped().enter(runs, limit).await
    }
}

#[async_trait]
impl MemoryReport for QemuVm {
    async fn report(&self) -> Result<MemoryUse, VmmError> {
        let pid = self.process.id().pid;
        let (ram, own) = (self.ram_file()?, self.record.base.is_none());
        let ram_bytes = self.record.machine.ram_bytes;
        blocking(move || {
            let failed = || VmmError::io("examine the memory of process", Path::new("smaps"));
            let smaps = read_smaps(pid, RamMapping::File(ram)).map_err(failed())?;
            let (sum, rest) = (smaps.ram, smaps.other);
            // RAM of its own is a memfd, whose pages do not count as anonymous.
            let ram_private_bytes = if own { sum.rss } else { sum.anonymous } + sum.swap;
            Ok(MemoryUse {
                ram_bytes,
                ram_shared_bytes: if own {
                    0
                } else {
                    sum.rss - sum.anonymous.min(sum.rss)
                },
                ram_private_bytes,
                vmm_private_bytes: rest.anonymous + rest.swap,
                pss_bytes: sum.pss + rest.pss,
                rss_bytes: sum.rss + rest.rss,
                vms_bytes: vms_bytes(pid).map_err(failed())?,
                page_faults: page_faults(pid).map_err(failed())?,
                cpu_seconds: cpu_seconds(pid).map_err(failed())?,
            })
        })
        .await
    }
}
