//! From a prepared machine to one that is as the plan says.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use super::calls::Call;
use super::driver::Shared;
use super::layout::{API, DISK, LOG, NAMES, PAGER, ROOT};
use super::prepare::Prepared;
use super::vm::{FirecrackerVm, last_words};
use crate::launch::{self, Network, Slot, Spec};
use crate::machine::{Ram, RunDir};
use crate::{ExitReason, VmmError};

/// A machine whose process exists.
pub(super) struct Spawned {
    vm: FirecrackerVm,
    calls: Vec<Call>,
    deadline: Duration,
    /// Memfds must stay open here until the launcher has them.
    _ram: (Option<Ram>, Ram),
}

/// Records the machine, prepares its directory and starts its launcher.
pub(super) fn spawn(shared: &Shared, prepared: Prepared) -> Result<Spawned, VmmError> {
    let run_dir = &prepared.run_dir;
    fill_directory(&prepared)?;
    prepared.record.write(run_dir)?;
    let spec = Spec {
        // A process number fits: the kernel's limit is 2^22.
        parent_pid: i32::try_from(std::process::id())
            .map_err(|error| VmmError::unusable(error.to_string()))?,
        boot_id: shared.boot_id.clone(),
        run_dir: run_dir.clone(),
        program: shared.firecracker.clone(),
        arguments: arguments(&prepared.name),
        files: prepared.files.clone(),
        listeners: Vec::new(),
        network: match &prepared.nic {
            None => Network::Absent,
            // Firecracker opens the device itself, by its name in the namespace.
            Some(nic) => Network::Slot(Slot {
                netns: nic.netns.clone(),
                tap: nic.tap.clone(),
                fd: None,
            }),
        },
        log: prepared.record.log.clone(),
        console: Some(prepared.console.clone()),
        uid: None,
    };
    let directory = RunDir::open(run_dir)?;
    let process = launch::spawn(&shared.launcher, &spec)
        .map_err(|error| with_log(error, run_dir, &prepared.record))?;
    let loaded = prepared.loaded();
    let loader = std::sync::Arc::clone(&shared.loader);
    Ok(Spawned {
        vm: FirecrackerVm::new(directory, process, prepared.record, loaded, loader),
        calls: prepared.calls,
        deadline: shared.start_deadline,
        _ram: (prepared.ram, prepared.saved),
    })
}

fn arguments(name: &str) -> Vec<String> {
    // Ids of Firecracker have letters, digits and dashes only.
    let id: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(64)
        .collect();
    let words = [
        "--id",
        &id,
        "--api-sock",
        API,
        "--log-path",
        LOG,
        "--level",
        "Warning",
    ];
    words.map(str::to_owned).to_vec()
}

/// Sockets of an earlier run would make Firecracker fail, and its log must exist.
fn fill_directory(prepared: &Prepared) -> Result<(), VmmError> {
    let run_dir = &prepared.run_dir;
    for name in NAMES {
        RunDir::remove(run_dir, name);
    }
    let links = [
        (ROOT, Some(&prepared.root)),
        (DISK, Some(&prepared.disk)),
        (PAGER, prepared.pager.as_ref()),
    ];
    for (name, target) in links {
        let link = run_dir.join(name);
        if let Some(target) = target {
            symlink(target, &link).map_err(VmmError::io("link", &link))?;
        }
    }
    let log = run_dir.join(LOG);
    fs::write(&log, "").map_err(VmmError::io("create", &log))?;
    // Guests without a port for it write their program's output elsewhere; readers expect the file.
    fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(&prepared.app)
        .map(drop)
        .map_err(VmmError::io("create", &prepared.app))
}

/// Makes the calls, unless the process ends first; leaves no process behind if one fails.
pub(super) async fn finish(spawned: Spawned) -> Result<FirecrackerVm, VmmError> {
    let Spawned {
        vm,
        calls,
        deadline,
        _ram,
    } = spawned;
    let ready = async {
        let mut api = vm.api().await?;
        for call in &calls {
            api.run(call, deadline).await?;
        }
        Ok(())
    };
    let outcome = tokio::select! {
        biased;
        ready = tokio::time::timeout(deadline, ready) => {
            ready.unwrap_or(Err(VmmError::Timeout { what: "the start of the VMM", after: deadline }))
        }
        reason = vm.process_ref().exited() => Err(VmmError::Exited { reason, stderr: String::new() }),
    };
    let Err(error) = outcome else { return Ok(vm) };
    let said = last_words(vm.run_dir(), vm.record());
    let ended = vm.destroy().await;
    Err(match (error, ended) {
        // The connection is lost a moment before the end is seen.
        (VmmError::Exited { .. }, Ok(reason)) => VmmError::Exited {
            reason,
            stderr: said,
        },
        (error, _) => error,
    })
}

fn with_log(error: VmmError, run_dir: &Path, record: &crate::machine::Record) -> VmmError {
    match error {
        VmmError::Exited { reason, .. } => VmmError::Exited {
            reason,
            stderr: last_words(run_dir, record),
        },
        other => other,
    }
}

/// Marks a lost machine.
pub(super) fn ended(reason: ExitReason) -> VmmError {
    VmmError::Exited {
        reason,
        stderr: String::new(),
    }
}
