//! Reading: records and published snapshots put together.

use std::time::Duration;

use model::{InstanceId, InstanceRecord, State, WaitVerdict, wait_verdict};

use super::OpError;
use super::published::Published;
use super::registry::Instances;
use crate::store::StoreError;

/// One instance, as a reader sees it.
#[derive(Clone)]
pub struct View {
    /// Its record.
    pub record: InstanceRecord,
    /// Existing instances whose parent it is.
    pub live_forks: u64,
    /// What its actor shows.
    pub published: Published,
}

/// One line of a listing.
pub enum Listed {
    /// An instance.
    Known(Box<View>),
    /// A record that cannot be read.
    Unreadable {
        /// Whose.
        id: String,
        /// Why.
        why: String,
    },
}

/// How a wait ended.
#[derive(Debug, Clone)]
pub struct WaitOutcome {
    /// The state at the end.
    pub state: State,
    /// What is wrong, in `Unknown`.
    pub state_error: Option<String>,
    /// The time was up.
    pub timed_out: bool,
}

impl Instances {
    /// One instance.
    pub async fn view(&self, id: &InstanceId) -> Result<View, OpError> {
        let key = id.clone();
        let entry = self
            .ctx
            .store
            .run(move |store| store.instance(&key))
            .await?;
        let published = self.handle(id)?.published.borrow().clone();
        Ok(View {
            record: entry.record,
            live_forks: entry.live_forks,
            published,
        })
    }

    /// All instances, oldest first.
    pub async fn list(&self) -> Result<Vec<Listed>, OpError> {
        let entries = self.ctx.store.run(|store| store.instances()).await?;
        let mut listed = Vec::with_capacity(entries.len());
        for entry in entries {
            match entry {
                Ok(entry) => {
                    // Recorded, but its actor is not up yet or already gone: between states.
                    let Ok(handle) = self.handle(&entry.record.id) else {
                        continue;
                    };
                    let published = handle.published.borrow().clone();
                    listed.push(Listed::Known(Box::new(View {
                        record: entry.record,
                        live_forks: entry.live_forks,
                        published,
                    })));
                }
                Err(StoreError::BadRecord { id, why }) => {
                    listed.push(Listed::Unreadable { id, why });
                }
                Err(other) => return Err(other.into()),
            }
        }
        Ok(listed)
    }

    /// Waits until the instance is in `target`, rests in another state, or `timeout` is over.
    pub async fn wait(
        &self,
        id: &InstanceId,
        target: State,
        timeout: Duration,
    ) -> Result<WaitOutcome, OpError> {
        let handle = self.handle(id)?;
        let mut published = handle.published.clone();
        let reached = tokio::time::timeout(timeout, async {
            loop {
                let (deleted, done) = {
                    let now = published.borrow_and_update();
                    let verdict = wait_verdict(now.state, target, now.busy);
                    (now.deleted, verdict == WaitVerdict::Done)
                };
                if deleted {
                    return Err(OpError::NotFound);
                }
                if done {
                    return Ok(());
                }
                let changed = published.changed().await;
                changed.map_err(|_| handle.without_actor())?;
            }
        })
        .await;
        let timed_out = reached.is_err();
        if let Ok(result) = reached {
            result?;
        }
        let now = published.borrow();
        Ok(WaitOutcome {
            state: now.state,
            state_error: now.state_error.clone(),
            timed_out,
        })
    }
}

/// How long a running instance's line to its agent may be down before a request that
/// needs it gives up: it is remade at once after a restart of the daemon.
const LINK_WAIT: Duration = Duration::from_secs(10);

impl Instances {
    /// The published snapshot of one instance.
    pub fn published(&self, id: &InstanceId) -> Result<Published, OpError> {
        Ok(self.handle(id)?.published.borrow().clone())
    }

    /// The line to the agent, as soon as there is one.
    pub async fn wait_for_link(&self, id: &InstanceId) -> Result<guest::Link, OpError> {
        let handle = self.handle(id)?;
        let mut published = handle.published.clone();
        let found = tokio::time::timeout(
            LINK_WAIT,
            published.wait_for(|now| now.link.is_some() || now.state != State::Running),
        )
        .await
        .map_err(|_| OpError::Timeout("waiting for the guest's agent"))?
        .map_err(|_| handle.without_actor())?;
        match &found.link {
            Some(link) => Ok(link.clone()),
            None => {
                Err(model::Refusal::state(format!("the instance is {} now", found.state)).into())
            }
        }
    }
}
