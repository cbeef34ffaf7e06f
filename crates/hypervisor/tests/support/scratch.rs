//! A directory of a test whose machines end with it; or, if the test was killed, with the next one.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Before the process number of the test, which is followed by a dash.
const PREFIX: &str = "coppice-vmms-";

pub(crate) struct Scratch {
    /// Taken when it is kept for a look at what failed.
    dir: Option<TempDir>,
    made: AtomicUsize,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        end_abandoned();
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir().unwrap();
        // VMMs of other users must reach their files.
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        Self {
            dir: Some(dir),
            made: AtomicUsize::new(0),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.as_ref().unwrap().path()
    }

    /// A new directory in it.
    pub(crate) fn next(&self) -> PathBuf {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let dir = self.path().join(number.to_string());
        std::fs::create_dir(&dir).unwrap();
        dir
    }
}

/// Machines outlive their handles, so a scenario that fails leaves some.
impl Drop for Scratch {
    fn drop(&mut self) {
        end_machines(self.path());
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            let kept = dir.keep();
            // Under another name it is not taken for that of a test that was killed.
            let name = kept
                .file_name()
                .map(|name| format!("kept-{}", name.display()));
            let new = kept.with_file_name(name.unwrap_or_default());
            let kept = std::fs::rename(&kept, &new).map_or(kept, |()| new);
            println!("kept: {}", kept.display());
        }
    }
}

/// A test that is killed cannot end its machines, whose guests may take a processor each for ever.
fn end_abandoned() {
    for entry in std::fs::read_dir(std::env::temp_dir())
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name();
        let test = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split_once('-'));
        if test.is_some_and(|(pid, _)| !Path::new("/proc").join(pid).exists()) {
            end_machines(&entry.path());
            // Another test may be at it too.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Ends the machines that drivers have marked there, jailed ones too, and what else works there.
fn end_machines(dir: &Path) {
    let marked = find(dir, "vmm.pid").into_iter().filter_map(|mark| {
        let mark: serde_json::Value = serde_json::from_slice(&std::fs::read(mark).ok()?).ok()?;
        let pid = i32::try_from(mark["pid"].as_i64()?).ok()?;
        (started(pid)? == mark["start_time"].as_u64()?).then_some(pid)
    });
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let working = processes.filter_map(|process| {
        let works_in = std::fs::read_link(process.path().join("cwd")).ok()?;
        works_in.starts_with(dir).then_some(())?;
        process.file_name().to_str()?.parse().ok()
    });
    for pid in marked.chain(working).filter_map(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Clock ticks from the host's start to the process's.
fn started(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; the first field behind it is number 3, this one 22.
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

fn find(dir: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(find(&entry.path(), name));
        } else if entry.file_name() == name {
            found.push(entry.path());
        }
    }
    found
}
