//! The daemon's side: orders to a launcher.

use std::path::Path;

use super::GO;
use super::ready::{Launchers, Waiting};
use super::spec::{Network, Spec};
use crate::VmmError;
use crate::process::{Process, ProcessId};

/// A launcher that opens what its VMM inherits, and does not become the VMM before it is told to. What the VMM finds in
/// its directory is made meanwhile. Dropped without [`Begun::go`] it ends, and is waited for.
#[derive(Debug)]
pub(crate) struct Begun {
    waiting: Waiting,
    process: Process,
}

impl Begun {
    /// The process that it is, and that the VMM will be.
    pub(crate) fn id(&self) -> ProcessId {
        self.process.id()
    }

    /// Lets it become the VMM. One that has ended is no error here: it is seen by who waits for its end.
    pub(crate) fn go(mut self) -> Result<Process, VmmError> {
        match self.waiting.say(GO) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(VmmError::io("speak to", Path::new("the launcher"))(error))
            }
            _ => {
                self.waiting.let_go();
                Ok(self.process)
            }
        }
    }
}

/// Gives orders to a launcher. The process that results is the launcher first and the VMM later, under one number.
/// Blocks for less than a millisecond; must be called inside a tokio runtime.
pub(crate) fn begin(launchers: &Launchers, spec: &Spec) -> Result<Begun, VmmError> {
    let program = launchers.program();
    let mut text =
        serde_json::to_vec(spec).map_err(|error| VmmError::io("start", program)(error.into()))?;
    text.push(b'\n');
    let waiting = launchers.take(matches!(spec.network, Network::Absent))?;
    // A process number fits: the kernel's limit is 2^22.
    let pid =
        i32::try_from(waiting.child.id()).map_err(|error| VmmError::unusable(error.to_string()))?;
    let opened = ProcessId::of(pid).and_then(Process::open);
    let process = opened.map_err(VmmError::io("watch", program))?;
    // It is our child and not waited for, so it exists; it can have ended already.
    let Some(process) = process else {
        // It was waited for, so its number is free.
        waiting.let_go();
        return Err(VmmError::Exited {
            reason: crate::ExitReason::Unknown,
            stderr: "launcher failed".into(),
        });
    };
    let mut begun = Begun { waiting, process };
    match begun.waiting.say(&text) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(VmmError::io("instruct", program)(error))
        }
        _ => Ok(begun),
    }
}

/// As [`begin`], for a VMM that finds everything made already.
pub(crate) fn spawn(launchers: &Launchers, spec: &Spec) -> Result<Process, VmmError> {
    begin(launchers, spec)?.go()
}
