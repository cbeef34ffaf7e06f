//! From a prepared machine to one that is as the plan says.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use memory::{Image, Loader};
use serde_json::json;

use super::command::{AGENT_FD, QMP_FD, STATE_FD, TAP_FD};
use super::complaints;
use super::driver::Shared;
use super::prepare::Prepared;
use super::qmp::Qmp;
use super::vm::{AGENT, QMP, QemuVm};
use crate::launch::{self, Listener, Network, Slot, Spec};
use crate::machine::{Ram, Record, RunDir, blocking, log};
use crate::pages::{FileId, Mapping, ProcessMemory};
use crate::{VmStatus, VmmError, Wake};

/// For a VMM to start and load its state; 20 to 60 ms alone, seconds when many start at once on few cores.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// Between two looks at a load that is under way, which takes a few milliseconds.
const LOAD_TICK: Duration = Duration::from_millis(1);

/// A machine whose process exists.
pub(super) struct Spawned {
    vm: QemuVm,
    patch: Option<(Image, usize)>,
    /// Own RAM must stay open here until QEMU has opened it.
    _ram: Ram,
}

/// Records the machine and starts its launcher.
pub(super) fn spawn(shared: &Shared, prepared: Prepared) -> Result<Spawned, VmmError> {
    let Prepared {
        run_dir,
        setup,
        record,
        files,
        ram,
        patch,
    } = prepared;
    record.write(&run_dir)?;
    if let Some(uid) = shared.vmm_uid {
        keep(&run_dir)?;
        give_to(uid, &setup, &record)?;
    }
    let listener = |fd, name: &str| Listener {
        fd,
        name: name.to_owned(),
    };
    let spec = Spec {
        // A process number fits: the kernel's limit is 2^22.
        parent_pid: i32::try_from(std::process::id())
            .map_err(|error| VmmError::unusable(error.to_string()))?,
        boot_id: shared.boot_id.clone(),
        run_dir: run_dir.clone(),
        program: shared.qemu.clone(),
        arguments: shared.model.arguments(&setup),
        files,
        listeners: vec![listener(QMP_FD, QMP), listener(AGENT_FD, AGENT)],
        network: match &setup.nic {
            None => Network::Absent,
            Some(nic) => Network::Slot(Slot {
                netns: nic.netns.clone(),
                tap: nic.tap.clone(),
                fd: Some(TAP_FD),
            }),
        },
        log: record.log.clone(),
        console: None,
        uid: shared.vmm_uid,
        jail: None,
    };
    // A socket of an earlier run would refuse connections until the launcher has replaced it.
    let directory = RunDir::open(&run_dir)?;
    let process =
        launch::spawn(&shared.launchers, &spec).map_err(|error| with_log(error, &record))?;
    let loaded = match &ram {
        Ram::Own(_) => None,
        Ram::Shared(loaded) => Some(Arc::clone(loaded)),
    };
    Ok(Spawned {
        vm: QemuVm::new(directory, process, record, loaded),
        patch,
        _ram: ram,
    })
}

/// The run directory belongs to the daemon, and not to the VMM's user as with earlier versions: what is noted there
/// says which process is signalled and which image is read.
pub(super) fn keep(run_dir: &Path) -> Result<(), VmmError> {
    let user = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    std::os::unix::fs::chown(run_dir, Some(user), Some(group))
        .map_err(VmmError::io("take back", run_dir))
}

/// Files that the VMM itself opens for writing must belong to its user.
fn give_to(uid: u32, setup: &super::command::Setup, record: &Record) -> Result<(), VmmError> {
    let top = setup.disk.last().map(|file| file.path.as_path());
    for log in [&setup.console, &setup.app, &record.log] {
        let mut options = std::fs::OpenOptions::new();
        options
            .append(true)
            .create(true)
            .open(log)
            .map_err(VmmError::io("create", log))?;
    }
    let written = [top, Some(&setup.console), Some(&setup.app)];
    for path in written.into_iter().flatten() {
        std::os::unix::fs::chown(path, Some(uid), Some(uid))
            .map_err(VmmError::io("give away", path))?;
    }
    Ok(())
}

/// Waits until a booting machine runs.
pub(super) async fn finish_launch(spawned: Spawned) -> Result<QemuVm, VmmError> {
    let Spawned { vm, _ram, .. } = spawned;
    let ready = async {
        let qmp = vm.connect(START_DEADLINE).await?;
        wait_until_running(&qmp).await
    };
    finish(&vm, ready).await?;
    Ok(vm)
}

/// Waits until the state is loaded, and sees to it that it was loaded well.
pub(super) async fn finish_restore(
    spawned: Spawned,
    wake: Wake,
    loader: &Arc<Loader>,
) -> Result<QemuVm, VmmError> {
    let Spawned { vm, patch, _ram } = spawned;
    let ready = async {
        let qmp = vm.connect(START_DEADLINE).await?;
        let deferred = patch.is_some() || wake == Wake::Paused;
        if let Some((image, position)) = patch {
            write_layer(&vm, image, position, loader).await?;
        }
        if deferred {
            load(&qmp).await?;
        } else {
            wait_until_running(&qmp).await?;
        }
        let said = log::since(&vm.record().log, vm.record().log_start);
        if let Some(line) = complaints::inconsistency(&said) {
            return Err(VmmError::Inconsistent {
                complaint: line.to_owned(),
            });
        }
        if deferred && wake == Wake::Running {
            qmp.run("cont", serde_json::Value::Null).await?;
        }
        Ok(())
    };
    finish(&vm, ready).await?;
    Ok(vm)
}

/// Runs `ready` unless the process ends first; leaves no process behind if it fails.
async fn finish(
    vm: &QemuVm,
    ready: impl Future<Output = Result<(), VmmError>>,
) -> Result<(), VmmError> {
    let outcome = tokio::select! {
        biased;
        ready = tokio::time::timeout(START_DEADLINE, ready) => {
            ready.unwrap_or(Err(VmmError::Timeout { what: "the start of the VMM", after: START_DEADLINE }))
        }
        reason = vm.process_ref().exited() => Err(VmmError::Exited { reason, stderr: String::new() }),
    };
    let Err(error) = outcome else { return Ok(()) };
    let ended = vm.destroy().await;
    Err(match (error, ended) {
        // The connection is lost a moment before the end is seen.
        (VmmError::Exited { .. }, Ok(reason)) => with_log(
            VmmError::Exited {
                reason,
                stderr: String::new(),
            },
            vm.record(),
        ),
        (error, _) => error,
    })
}

fn with_log(error: VmmError, record: &Record) -> VmmError {
    match error {
        VmmError::Exited { reason, .. } => {
            let stderr = log::quote(&log::since(&record.log, record.log_start));
            VmmError::Exited { reason, stderr }
        }
        other => other,
    }
}

async fn wait_until_running(qmp: &Qmp) -> Result<(), VmmError> {
    // A guest may have powered off already; that is for the caller to see.
    if qmp.wait_for(|status| status != VmStatus::Prelaunch).await {
        Ok(())
    } else {
        Err(VmmError::Exited {
            reason: crate::ExitReason::Unknown,
            stderr: String::new(),
        })
    }
}

/// Loads the state into a machine that waits for it. A failed load ends QEMU.
async fn load(qmp: &Qmp) -> Result<(), VmmError> {
    qmp.run(
        "migrate-incoming",
        json!({ "uri": format!("fd:{STATE_FD}") }),
    )
    .await?;
    while qmp.query_status(START_DEADLINE).await? == VmStatus::Prelaunch {
        tokio::time::sleep(LOAD_TICK).await;
    }
    Ok(())
}

/// Writes a layer into the machine's RAM. This must come before the state: loading it reads the rings of the
/// devices from RAM.
async fn write_layer(
    vm: &QemuVm,
    image: Image,
    position: usize,
    loader: &Arc<Loader>,
) -> Result<(), VmmError> {
    let pid = vm.process_ref().id().pid;
    let Some(loaded) = vm.loaded() else {
        return Err(VmmError::unusable("the machine maps no image"));
    };
    let loader = Arc::clone(loader);
    blocking(move || {
        let failed = || VmmError::io("write the RAM of process", Path::new("mem"));
        let file = FileId::of(&loaded).map_err(failed())?;
        let mapping = Mapping::find(pid, file, loaded.ram_bytes()).map_err(failed())?;
        let memory = ProcessMemory::writable(pid, mapping).map_err(failed())?;
        Ok(loader.read_layer(&image, position, |first, bytes| memory.write(first, bytes))?)
    })
    .await
}
