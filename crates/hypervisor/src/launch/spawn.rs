//! The daemon's side: starting the launcher.

use std::io::Write;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use super::GO;
use super::spec::Spec;
use crate::VmmError;
use crate::process::{Process, ProcessId};

/// A launcher that opens what its VMM inherits, and does not become the VMM before it is told to. What the VMM finds in
/// its directory is made meanwhile. Dropped without [`Begun::go`] it ends, and is waited for.
#[derive(Debug)]
pub(crate) struct Begun {
    child: Child,
    stdin: Option<ChildStdin>,
    process: Option<Process>,
}

impl Begun {
    /// The process that it is, and that the VMM will be.
    pub(crate) fn id(&self) -> Result<ProcessId, VmmError> {
        self.process
            .as_ref()
            .map(Process::id)
            .ok_or_else(told_twice)
    }

    /// Lets it become the VMM. One that has ended is no error here: it is seen by who waits for its end.
    pub(crate) fn go(mut self) -> Result<Process, VmmError> {
        if let Some(mut stdin) = self.stdin.take()
            && let Err(error) = stdin.write_all(GO)
            && error.kind() != std::io::ErrorKind::BrokenPipe
        {
            return Err(VmmError::io("speak to", Path::new("the launcher"))(error));
        }
        self.process.take().ok_or_else(told_twice)
    }
}

fn told_twice() -> VmmError {
    VmmError::unusable("a launcher was told twice to go on")
}

impl Drop for Begun {
    fn drop(&mut self) {
        if self.process.is_some() {
            // Both fail only if it has ended.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Starts the launcher `prefix` (a program and its first arguments) with `spec`. The process that results is the
/// launcher first and the VMM later, under one number. Blocks for less than a millisecond; must be called inside a
/// tokio runtime.
pub(crate) fn begin(prefix: &[String], spec: &Spec) -> Result<Begun, VmmError> {
    let Some((program, first)) = prefix.split_first() else {
        return Err(VmmError::unusable("no launcher is configured"));
    };
    let program = Path::new(program);
    let mut text =
        serde_json::to_vec(spec).map_err(|error| VmmError::io("start", program)(error.into()))?;
    text.push(b'\n');
    // Nothing here needs a fork: the standard library spawns such a command by posix_spawn.
    let mut child = Command::new(program)
        .args(first)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(VmmError::io("start", program))?;
    let stdin = child.stdin.take();
    // A process number fits: the kernel's limit is 2^22.
    let pid = i32::try_from(child.id()).map_err(|error| VmmError::unusable(error.to_string()))?;
    let opened = ProcessId::of(pid).and_then(Process::open);
    let process = opened.map_err(VmmError::io("watch", program))?;
    // It is our child and not waited for, so it exists; it can have ended already.
    let process = process.ok_or_else(|| VmmError::Exited {
        reason: crate::ExitReason::Unknown,
        stderr: "launcher failed".into(),
    })?;
    let mut begun = Begun {
        child,
        stdin,
        process: Some(process),
    };
    match begun.stdin.as_mut().map(|stdin| stdin.write_all(&text)) {
        Some(Err(error)) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(VmmError::io("instruct", program)(error))
        }
        _ => Ok(begun),
    }
}

/// As [`begin`], for a VMM that finds everything made already.
pub(crate) fn spawn(prefix: &[String], spec: &Spec) -> Result<Process, VmmError> {
    begin(prefix, spec)?.go()
}
