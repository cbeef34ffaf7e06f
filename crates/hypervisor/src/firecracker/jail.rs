//! Machines in a jail: Firecracker's own jailer, with a user for each machine.

use std::collections::BTreeSet;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::layout::{API, DISK, INITRD, JAIL, KERNEL, LOG, PAGER, ROOT, SAVED_RAM, STATE};
use super::prepare::Prepared;
use crate::VmmError;
use crate::launch::{Access, Jail, JailFile};

/// How machines are jailed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JailConfig {
    /// Firecracker's jailer, of the same version.
    pub jailer: PathBuf,
    /// Users and groups that nobody else has; each machine gets one of its own.
    pub uids: Range<u32>,
    /// Version of the control groups, 1 or 2; what the host has mounted.
    pub cgroup_version: u32,
    /// Control group files and values, for example `memory.max=2G`; each machine gets groups of its own with them.
    pub cgroups: Vec<String>,
}

/// Room in a root besides saved RAM: for the program, of which the jailer makes a copy, for state and log.
const ROOM_BYTES: u64 = 64 << 20;

/// Where control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Users of machines that are being started; those of running ones are seen in `/proc`.
#[derive(Debug)]
pub(super) struct Users {
    range: Range<u32>,
    starting: Mutex<BTreeSet<u32>>,
}

impl Users {
    pub(super) fn new(range: Range<u32>) -> Self {
        Self {
            range,
            starting: Mutex::default(),
        }
    }

    /// A user that no process has, kept for the caller until it is given back.
    pub(super) fn take(&self) -> Result<u32, VmmError> {
        self.take_of(users_in_use)
    }

    fn take_of(
        &self,
        in_use: impl FnOnce() -> std::io::Result<BTreeSet<u32>>,
    ) -> Result<u32, VmmError> {
        // Before the list is made: a user that is given back while it is made would be in neither.
        let mut starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        let in_use = in_use().map_err(VmmError::io("list", Path::new("/proc")))?;
        let free = self
            .range
            .clone()
            .find(|uid| !in_use.contains(uid) && !starting.contains(uid));
        let uid = free.ok_or_else(|| {
            VmmError::unusable(format!(
                "all {} users for jailed machines are in use; configure a larger range",
                self.range.len()
            ))
        })?;
        starting.insert(uid);
        Ok(uid)
    }

    /// The process of the machine exists, or never will.
    pub(super) fn give_back(&self, uid: u32) {
        self.starting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&uid);
    }
}

fn users_in_use() -> std::io::Result<BTreeSet<u32>> {
    let mut users = BTreeSet::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let is_process = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        // A process that has ended meanwhile uses nothing.
        if let Some(metadata) = entry.metadata().ok().filter(|_| is_process) {
            users.insert(metadata.uid());
        }
    }
    Ok(users)
}

/// What the launcher makes before the jailer runs.
pub(super) fn build(
    prepared: &Prepared,
    id: &str,
    firecracker: &Path,
    uid: u32,
) -> Result<Jail, VmmError> {
    let file = |name: &str, path: &Path, access| JailFile {
        name: name.to_owned(),
        path: path.to_path_buf(),
        access,
    };
    let mut files = vec![
        file(ROOT, &prepared.root, Access::Read),
        file(DISK, &prepared.disk, Access::ReadWrite),
    ];
    give(&prepared.disk, uid)?;
    for (name, path) in [
        (KERNEL, &prepared.kernel),
        (INITRD, &prepared.initrd),
        (STATE, &prepared.state),
    ] {
        files.extend(path.as_ref().map(|path| file(name, path, Access::Read)));
    }
    if let Some(pager) = &prepared.pager {
        give(pager, uid)?;
        files.push(file(PAGER, pager, Access::ReadWrite));
    }
    Ok(Jail {
        root: root(&prepared.run_dir, id, firecracker),
        uid,
        files,
        empty: vec![LOG.to_owned(), SAVED_RAM.to_owned()],
        bytes: prepared.record.machine.ram_bytes + ROOM_BYTES,
        stdin: prepared.ram.as_ref().map(crate::machine::Ram::path),
    })
}

fn give(path: &Path, uid: u32) -> Result<(), VmmError> {
    chown(path, Some(uid), Some(uid)).map_err(VmmError::io("give away", path))
}

/// Where the jailer expects the root.
fn root(run_dir: &Path, id: &str, firecracker: &Path) -> PathBuf {
    let program = firecracker.file_name().unwrap_or_default();
    run_dir.join(JAIL).join(program).join(id).join("root")
}

/// Arguments of the jailer; those of Firecracker come last.
pub(super) fn arguments(
    config: &JailConfig,
    run_dir: &Path,
    id: &str,
    firecracker: &Path,
    uid: u32,
) -> Vec<String> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut words = vec![
        "--id".to_owned(),
        id.to_owned(),
        "--exec-file".into(),
        text(firecracker),
        "--uid".into(),
        uid.to_string(),
        "--gid".into(),
        uid.to_string(),
        "--chroot-base-dir".into(),
        text(&run_dir.join(JAIL)),
        "--cgroup-version".into(),
        config.cgroup_version.to_string(),
        // The jailer's own choice is above the launcher's limit, and it ends when it cannot have it.
        "--resource-limit".into(),
        format!("no-file={}", crate::launch::MAX_OPEN_FILES),
    ];
    for cgroup in &config.cgroups {
        words.extend(["--cgroup".to_owned(), cgroup.clone()]);
    }
    words.push("--".into());
    words.extend(["--api-sock", API, "--log-path", LOG, "--level", "Warning"].map(str::to_owned));
    words
}

/// Removes what the jailer has left of an earlier machine of this run directory: empty directories (what was mounted
/// there was so in the machine's own namespace only) and the machine's control groups.
pub(super) fn clean(run_dir: &Path) {
    let jail = run_dir.join(JAIL);
    for program in subdirectories(&jail) {
        for id in subdirectories(&program) {
            if let Ok(group) = id.strip_prefix(&jail) {
                remove_cgroups(group);
            }
        }
    }
    if let Err(error) = std::fs::remove_dir_all(&jail)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, dir = %jail.display(), "cannot remove what a jail left");
    }
}

/// The jailer makes a group `program/id` in one hierarchy, or in several of them. One that is not there is no matter.
fn remove_cgroups(group: &Path) {
    let top = PathBuf::from(CGROUPS);
    for hierarchy in subdirectories(&top).into_iter().chain([top]) {
        let _ = std::fs::remove_dir(hierarchy.join(group));
    }
}

fn subdirectories(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_one_machines_alone() {
        let users = Users::new(10..13);
        let running = || Ok(BTreeSet::from([11]));
        assert_eq!(users.take_of(running).unwrap(), 10);
        assert_eq!(users.take_of(running).unwrap(), 12);
        let error = users.take_of(running).unwrap_err().to_string();
        assert!(error.contains("configure a larger range"), "{error}");
        users.give_back(10);
        assert_eq!(users.take_of(running).unwrap(), 10);
    }

    /// A machine that is up by the end of the list may have been listed before it had its user.
    #[test]
    fn nobody_is_given_back_while_users_are_listed() {
        let users = Users::new(10..12);
        let listed = || {
            assert!(users.starting.try_lock().is_err());
            Ok(BTreeSet::new())
        };
        assert_eq!(users.take_of(listed).unwrap(), 10);
    }
}
