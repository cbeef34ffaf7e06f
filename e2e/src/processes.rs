//! Processes as the host sees them, told apart by the data directory they belong to.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A process that belongs to a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Clock ticks from the host's start to its own; with the id it names one process for ever.
    pub started: String,
    /// Below which instance's directory it works, if any.
    pub instance: Option<String>,
}

/// All processes that work below `data` or were started with a path below it.
pub(crate) fn belonging_to(data: &Path) -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| belongs(&entry.path(), data))
        .collect()
}

fn belongs(proc: &Path, data: &Path) -> Option<Process> {
    let pid = proc.file_name()?.to_str()?.parse().ok()?;
    let directory = fs::read_link(proc.join("cwd")).ok()?;
    let arguments = fs::read(proc.join("cmdline")).ok()?;
    let text = data.to_str()?;
    let arguments = String::from_utf8_lossy(&arguments);
    let jailed = instance_of_jailed(&arguments, data);
    if !directory.starts_with(data) && !arguments.contains(text) && jailed.is_none() {
        return None;
    }
    let stat = fs::read_to_string(proc.join("stat")).ok()?;
    // The name in parentheses may hold anything; the fields after it are numbered from 3.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if fields.first() == Some(&"Z") {
        return None;
    }
    Some(Process {
        pid,
        started: (*fields.get(19)?).to_owned(),
        instance: instance_of(&directory, data).or(jailed),
    })
}

/// A jailed machine works in a root of its own. It is known by its name, which holds the instance's.
fn instance_of_jailed(arguments: &str, data: &Path) -> Option<String> {
    let mut words = arguments.split('\0').skip_while(|word| *word != "--id");
    let id = words.nth(1)?;
    let instances = fs::read_dir(data.join("instances")).ok()?;
    instances
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .find(|instance| id.contains(instance.as_str()))
}

fn instance_of(directory: &Path, data: &Path) -> Option<String> {
    let below: PathBuf = directory
        .strip_prefix(data.join("instances"))
        .ok()?
        .to_owned();
    let first = below.components().next()?;
    Some(first.as_os_str().to_str()?.to_owned())
}

/// Kills everything that belongs to `data` and waits until it is gone.
pub(crate) fn end_all(data: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let left = belonging_to(data);
        if left.is_empty() || Instant::now() > deadline {
            return;
        }
        for process in left {
            kill(process.pid);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// SIGKILL.
pub(crate) fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may have ended by itself.
        let _ = kill_process(pid, Signal::KILL);
    }
}
