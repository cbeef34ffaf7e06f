//! Operations that fail or wait because a test wants it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::VmmError;

/// What can be made to fail or to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`crate::Driver::launch`]
    Launch,
    /// [`crate::Driver::restore`]
    Restore,
    /// [`crate::Driver::adopt`]
    Adopt,
    /// [`crate::Vm::pause`]
    Pause,
    /// [`crate::Vm::resume`]
    Resume,
    /// [`crate::Vm::quit`]
    Quit,
    /// [`crate::Vm::kill`]
    Kill,
    /// [`crate::Vm::dial`]
    Dial,
    /// [`crate::Snapshots::capture`]
    Capture,
    /// [`crate::Templates::hold`]
    Hold,
    /// [`crate::MappedRam::touched`]
    Touched,
    /// [`crate::MappedRam::enter`]
    Enter,
}

#[derive(Debug)]
enum Hook {
    Fail(String),
    Wait {
        reached: oneshot::Sender<()>,
        go: oneshot::Receiver<()>,
    },
}

#[derive(Debug, Default)]
pub(super) struct Hooks {
    waiting: Mutex<HashMap<Operation, VecDeque<Hook>>>,
}

/// An operation that stops at its beginning. Dropping this lets it go on.
#[derive(Debug)]
pub struct Held {
    reached: oneshot::Receiver<()>,
    go: oneshot::Sender<()>,
}

impl Held {
    /// Waits until the operation has arrived; false if it never will.
    pub async fn reached(&mut self) -> bool {
        (&mut self.reached).await.is_ok()
    }

    /// Lets the operation go on.
    pub fn release(self) {
        // If nobody waits, the operation was given up.
        let _ = self.go.send(());
    }
}

impl Hooks {
    pub(super) fn fail(&self, operation: Operation, reason: &str) {
        self.push(operation, Hook::Fail(reason.to_owned()));
    }

    pub(super) fn hold(&self, operation: Operation) -> Held {
        let (arrived, reached) = oneshot::channel();
        let (go, waits) = oneshot::channel();
        self.push(
            operation,
            Hook::Wait {
                reached: arrived,
                go: waits,
            },
        );
        Held { reached, go }
    }

    /// Called at the beginning of each operation; takes the oldest hook that was set for it.
    pub(super) async fn pass(&self, operation: Operation) -> Result<(), VmmError> {
        match self.pop(operation) {
            None => Ok(()),
            Some(Hook::Fail(reason)) => Err(VmmError::unusable(reason)),
            Some(Hook::Wait { reached, go }) => {
                let _ = reached.send(());
                let _ = go.await;
                Ok(())
            }
        }
    }

    fn push(&self, operation: Operation, hook: Hook) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.entry(operation).or_default().push_back(hook);
    }

    fn pop(&self, operation: Operation) -> Option<Hook> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.get_mut(&operation)?.pop_front()
    }
}
