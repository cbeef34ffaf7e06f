//! The daemon's side: starting the launcher.

use std::path::Path;
use std::process::{Command, Stdio};

use super::spec::Spec;
use crate::VmmError;
use crate::process::{Process, ProcessId};

/// Name of the spec in the run directory.
const SPEC_FILE: &str = "launch.json";

/// Starts the launcher `prefix` (a program and its first arguments) with `spec`. The process that results is the
/// launcher first and the VMM later, under one number. Blocks for about a millisecond; must be called inside a
/// tokio runtime.
pub(crate) fn spawn(prefix: &[String], spec: &Spec) -> Result<Process, VmmError> {
    let path = spec.run_dir.join(SPEC_FILE);
    let text =
        serde_json::to_vec(spec).map_err(|error| VmmError::io("encode", &path)(error.into()))?;
    std::fs::write(&path, text).map_err(VmmError::io("write", &path))?;
    let Some((program, first)) = prefix.split_first() else {
        return Err(VmmError::unusable("no launcher is configured"));
    };
    // Nothing here needs a fork: the standard library spawns such a command by posix_spawn.
    let child = Command::new(program)
        .args(first)
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(VmmError::io("start", Path::new(program)))?;
    let failed = VmmError::io("watch", Path::new(program));
    // A process number fits: the kernel's limit is 2^22.
    let pid = i32::try_from(child.id()).map_err(|error| VmmError::unusable(error.to_string()))?;
    let opened = ProcessId::of(pid).and_then(Process::open).map_err(failed)?;
    // It is our child and not waited for, so it exists; it can have ended already.
    opened.ok_or_else(|| VmmError::Exited {
        reason: crate::ExitReason::Unknown,
        stderr: "launcher failed".into(),
    })
}
