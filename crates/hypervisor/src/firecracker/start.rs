//! From a prepared machine to one that is as the plan says.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::calls::Call;
use super::driver::Shared;
use super::jail::{self, JailConfig};
use super::layout::{API, DISK, LOG, PAGER, ROOT};
use super::prepare::Prepared;
use super::vm::{FirecrackerVm, clean_directory, last_words, open_run_dir};
use crate::launch::{self, Network, Slot, Spec};
use crate::machine::Ram;
use crate::{ExitReason, Nic, VmmError};

/// For an answer that a process gave before it ended.
const LAST_ANSWER: Duration = Duration::from_millis(200);

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
    let Some((config, users)) = &shared.jail else {
        return spawn_as(shared, prepared, None);
    };
    let uid = users.take()?;
    let spawned = spawn_as(shared, prepared, Some((config, uid)));
    // The user shows in `/proc` only when the jailer has changed to it, so it is kept until the machine is up.
    match spawned {
        Ok(spawned) => Ok(spawned),
        Err(error) => {
            users.give_back(uid);
            Err(error)
        }
    }
}

fn spawn_as(
    shared: &Shared,
    mut prepared: Prepared,
    jailed: Option<(&JailConfig, u32)>,
) -> Result<Spawned, VmmError> {
    prepared.record.jail_uid = jailed.map(|(_, uid)| uid);
    prepared.record.app_log = Some(prepared.app.clone());
    let run_dir = &prepared.run_dir;
    let id = id(&prepared.name);
    clean_directory(run_dir);
    let spec = spec(shared, &prepared, &id, jailed)?;
    let failed = |error| with_log(error, run_dir, &prepared.record);
    let begun = launch::begin(&shared.launchers, &spec).map_err(failed)?;
    // Files are made while the launcher does what it can do without them. It would make these two itself, later.
    for log in [&prepared.record.log, &prepared.console, &prepared.app] {
        make_log(log)?;
    }
    if jailed.is_none() {
        fill_directory(&prepared)?;
    }
    prepared.record.write(run_dir)?;
    // What can fail comes before there is a VMM that nobody would have.
    let directory = open_run_dir(run_dir, &prepared.record, begun.id())?;
    let process = begun.go()?;
    let loaded = prepared.loaded();
    let loader = Arc::clone(&shared.loader);
    Ok(Spawned {
        vm: FirecrackerVm::new(directory, process, prepared.record, loaded, loader),
        calls: prepared.calls,
        deadline: shared.start_deadline,
        _ram: (prepared.ram, prepared.saved),
    })
}

fn spec(
    shared: &Shared,
    prepared: &Prepared,
    id: &str,
    jailed: Option<(&JailConfig, u32)>,
) -> Result<Spec, VmmError> {
    let run_dir = &prepared.run_dir;
    let mut spec = Spec {
        // A process number fits: the kernel's limit is 2^22.
        parent_pid: i32::try_from(std::process::id())
            .map_err(|error| VmmError::unusable(error.to_string()))?,
        boot_id: shared.boot_id.clone(),
        run_dir: run_dir.clone(),
        program: shared.firecracker.clone(),
        arguments: Vec::new(),
        files: Vec::new(),
        listeners: Vec::new(),
        network: network(prepared.nic.as_ref()),
        log: prepared.record.log.clone(),
        console: Some(prepared.console.clone()),
        uid: None,
        jail: None,
    };
    match jailed {
        None => {
            spec.files.clone_from(&prepared.files);
            spec.arguments = arguments(id);
        }
        Some((config, uid)) => {
            let program = &shared.firecracker;
            spec.program.clone_from(&config.jailer);
            spec.arguments = jail::arguments(config, run_dir, id, program, uid);
            spec.jail = Some(jail::build(prepared, id, program, uid)?);
        }
    }
    Ok(spec)
}

/// Firecracker opens the device itself, by its name in the namespace.
fn network(nic: Option<&Nic>) -> Network {
    nic.map_or(Network::Absent, |nic| {
        Network::Slot(Slot {
            netns: nic.netns.clone(),
            tap: nic.tap.clone(),
            fd: None,
        })
    })
}

/// Ids of Firecracker have letters, digits and dashes only, 64 at most.
fn id(name: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    name.chars().map(letter).take(64).collect()
}

fn arguments(id: &str) -> Vec<String> {
    let words = [
        "--id",
        id,
        "--api-sock",
        API,
        "--log-path",
        LOG,
        "--level",
        "Warning",
    ];
    words.map(str::to_owned).to_vec()
}

/// Links to the machine's files; and its log, which must exist.
fn fill_directory(prepared: &Prepared) -> Result<(), VmmError> {
    let run_dir = &prepared.run_dir;
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
    fs::write(&log, "").map_err(VmmError::io("create", &log))
}

/// Output of the program comes when the guest has its agent; readers expect the file before.
fn make_log(path: &Path) -> Result<(), VmmError> {
    fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .map(drop)
        .map_err(VmmError::io("create", path))
}

/// Makes the calls, unless the process ends first; leaves no process behind if one fails.
pub(super) async fn finish(shared: &Shared, spawned: Spawned) -> Result<FirecrackerVm, VmmError> {
    let uid = spawned.vm.record().jail_uid;
    let outcome = make_calls(spawned).await;
    if let (Some((_, users)), Some(uid)) = (&shared.jail, uid) {
        users.give_back(uid);
    }
    outcome
}

async fn make_calls(spawned: Spawned) -> Result<FirecrackerVm, VmmError> {
    let Spawned {
        vm,
        calls,
        deadline,
        _ram,
    } = spawned;
    let outcome = calls_or_end(&vm, &calls, deadline).await;
    let Err(error) = outcome else {
        vm.follow_output();
        return Ok(vm);
    };
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

/// Makes the calls one after the other, unless the process ends before they are done.
async fn calls_or_end(
    vm: &FirecrackerVm,
    calls: &[Call],
    deadline: Duration,
) -> Result<(), VmmError> {
    let made = async {
        let mut api = vm.api().await?;
        for call in calls {
            api.run(call, deadline).await?;
        }
        Ok(())
    };
    let mut made = pin!(timeout(deadline, made));
    tokio::select! {
        biased;
        made = &mut made => made.unwrap_or(Err(VmmError::Timeout {
            what: "the start of the VMM",
            after: deadline,
        })),
        reason = vm.process_ref().exited() => {
            // It ends when a load fails, and its answer with the reason may still be on its way.
            match timeout(LAST_ANSWER, made).await {
                Ok(Ok(Err(refused @ VmmError::Refused { .. }))) => Err(refused),
                Ok(_) | Err(_) => Err(ended(reason)),
            }
        }
    }
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
