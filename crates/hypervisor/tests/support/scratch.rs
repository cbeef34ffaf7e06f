//! A directory of a test whose machines end with it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

pub(crate) struct Scratch {
    /// Taken when it is kept for a look at what failed.
    dir: Option<TempDir>,
    made: AtomicUsize,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
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
        for mark in find(self.path(), "vmm.pid") {
            let text = std::fs::read_to_string(mark).unwrap_or_default();
            let mark: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let pid = mark["pid"].as_i64().unwrap_or_default();
            let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            if cwd.starts_with(self.path())
                && let Some(pid) =
                    rustix::process::Pid::from_raw(i32::try_from(pid).unwrap_or_default())
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            println!("kept: {}", dir.keep().display());
        }
    }
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
