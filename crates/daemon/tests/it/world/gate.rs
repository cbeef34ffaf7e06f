//! Every step of the daemon towards the outside (a use of the records, a call of the
//! VMM's driver) passes this gate, in order. A test can fail one, or stop the daemon
//! right before or right after one, as if it had been killed there.

use std::future::pending;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use daemon::store::{Hook, StoreError};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    After,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Plan {
    #[default]
    Pass,
    Stop(usize, When),
    Fail(usize),
    Panic(usize),
    FailFirst(&'static str),
    PanicFirst(&'static str),
}

#[derive(Debug, Default)]
struct Inner {
    plan: Plan,
    taken: Vec<&'static str>,
}

#[derive(Debug, Default)]
pub(crate) struct Gate {
    inner: Mutex<Inner>,
    stopped: watch::Sender<bool>,
}

/// A step that was let pass.
pub(crate) struct Passed(usize);

impl Gate {
    /// Lets everything pass and counts from the beginning.
    pub(crate) fn open(&self) {
        self.set(Plan::Pass);
    }

    /// Stops the daemon at the step with this number.
    pub(crate) fn stop_at(&self, step: usize, when: When) {
        self.set(Plan::Stop(step, when));
    }

    /// Fails the step with this number.
    pub(crate) fn fail_at(&self, step: usize) {
        self.set(Plan::Fail(step));
    }

    /// Whoever takes the step with this number panics.
    pub(crate) fn panic_at(&self, step: usize) {
        self.set(Plan::Panic(step));
    }

    /// Fails the next step of this name, and no other.
    pub(crate) fn fail_first(&self, name: &'static str) {
        self.set(Plan::FailFirst(name));
    }

    /// Whoever takes the next step of this name panics.
    pub(crate) fn panic_first(&self, name: &'static str) {
        self.set(Plan::PanicFirst(name));
    }

    /// The steps that were begun since the last change of plan.
    pub(crate) fn taken(&self) -> Vec<&'static str> {
        self.inner().taken.clone()
    }

    /// Waits until the daemon was stopped.
    pub(crate) async fn stopped(&self) {
        // The sender lives in `self`.
        let _ = self.stopped.subscribe().wait_for(|stopped| *stopped).await;
    }

    pub(crate) fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    /// An error when the step is to fail.
    pub(crate) async fn before(&self, name: &'static str) -> Result<Passed, String> {
        if self.is_stopped() {
            pending::<()>().await;
        }
        let (step, first, plan) = {
            let mut inner = self.inner();
            let first = !inner.taken.contains(&name);
            inner.taken.push(name);
            (inner.taken.len() - 1, first, inner.plan)
        };
        if plan == Plan::Fail(step) || (first && plan == Plan::FailFirst(name)) {
            return Err(format!("injected into step {step} ({name})"));
        }
        let panics = plan == Plan::Panic(step) || (first && plan == Plan::PanicFirst(name));
        assert!(!panics, "injected into {name}");
        self.stop_if(plan == Plan::Stop(step, When::Before)).await;
        Ok(Passed(step))
    }

    pub(crate) async fn after(&self, passed: Passed) {
        let plan = self.inner().plan;
        self.stop_if(plan == Plan::Stop(passed.0, When::After) || self.is_stopped())
            .await;
    }

    async fn stop_if(&self, stop: bool) {
        if stop {
            self.stopped.send_replace(true);
            pending::<()>().await;
        }
    }

    fn set(&self, plan: Plan) {
        *self.inner() = Inner {
            plan,
            taken: Vec::new(),
        };
        self.stopped.send_replace(false);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }
}

/// The records' side of the gate.
pub(crate) struct Records(pub(crate) std::sync::Arc<Gate>);

#[async_trait]
impl Hook for Records {
    async fn before(&self) -> Result<(), StoreError> {
        match self.0.before("records").await {
            Ok(_) => Ok(()),
            Err(why) => Err(StoreError::BadRecord {
                id: "injected".to_owned(),
                why,
            }),
        }
    }

    async fn after(&self) {
        self.0.after_records().await;
    }
}

impl Gate {
    /// Uses of the records do not overlap within one actor; the one that ends is the
    /// newest of them as far as a test can tell.
    async fn after_records(&self) {
        let step = {
            let inner = self.inner();
            inner.taken.iter().rposition(|name| *name == "records")
        };
        if let Some(step) = step {
            self.after(Passed(step)).await;
        }
    }
}
