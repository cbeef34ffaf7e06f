//! All instances: who they are, and the way to their actors.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{StreamExt as _, stream};
use model::{InstanceId, InstanceRecord, State};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info};

use super::actor::Actor;
use super::changes::Changes;
use super::command::{Command, Envelope, MAILBOX, Outcome, Patch, StartOverrides};
use super::context::Context;
use super::published::Published;
use super::slot::Networking;
use super::sweep::{Swept, sweep};
use super::{OpError, chain};
use crate::store::Found;

/// Instances that are brought in step at one time after a restart.
const PARALLEL_RECOVERIES: usize = 16;

/// The handle of one actor.
#[derive(Clone)]
pub(super) struct Handle {
    mailbox: mpsc::Sender<Envelope>,
    pub(super) published: watch::Receiver<Published>,
}

/// All instances of this host.
pub struct Instances {
    pub(super) ctx: Arc<Context>,
    actors: Mutex<HashMap<InstanceId, Handle>>,
}

impl Instances {
    /// Reads the records, brings every instance in step with the world, and removes what
    /// no record names.
    pub async fn open(ctx: Arc<Context>) -> Result<(Arc<Self>, Swept), OpError> {
        let all = Arc::new(Self {
            ctx: Arc::clone(&ctx),
            actors: Mutex::new(HashMap::new()),
        });
        let entries = ctx.store.run(|store| store.instances()).await?;
        let mut known = HashSet::new();
        let mut records = Vec::new();
        for entry in entries {
            match entry {
                Ok(entry) => {
                    known.insert(entry.record.id.to_string());
                    records.push(entry.record);
                }
                Err(crate::store::StoreError::BadRecord { id, why }) => {
                    error!(instance = %id, %why, "a record cannot be read; the instance is left as it is");
                    known.insert(id);
                }
                Err(other) => return Err(other.into()),
            }
        }
        let swept = sweep(&ctx, &known).await?;
        stream::iter(records)
            .for_each_concurrent(PARALLEL_RECOVERIES, |record| all.recover(record))
            .await;
        Ok((all, swept))
    }

    async fn recover(self: &Arc<Self>, record: InstanceRecord) {
        let id = record.id.clone();
        let (mut actor, published) = Actor::new(Arc::clone(&self.ctx), record);
        actor.recover().await;
        if published.borrow().deleted {
            info!(instance = %id, "an unfinished instance was removed");
            return;
        }
        self.install(id, actor, published);
    }

    /// Starts the actor of a record that was just written.
    pub(super) fn spawn(self: &Arc<Self>, record: InstanceRecord) -> Handle {
        let id = record.id.clone();
        let (actor, published) = Actor::new(Arc::clone(&self.ctx), record);
        self.install(id, actor, published)
    }

    fn install(
        self: &Arc<Self>,
        id: InstanceId,
        actor: Actor,
        published: watch::Receiver<Published>,
    ) -> Handle {
        let (sender, receiver) = mpsc::channel(MAILBOX);
        let handle = Handle {
            mailbox: sender,
            published,
        };
        self.actors().insert(id.clone(), handle.clone());
        let all = Arc::downgrade(self);
        tokio::spawn(async move {
            actor.run(receiver).await;
            if let Some(all) = all.upgrade() {
                all.actors().remove(&id);
            }
        });
        handle
    }

    fn actors(&self) -> MutexGuard<'_, HashMap<InstanceId, Handle>> {
        // The map is whole between any two calls on it, so a poisoned lock says nothing.
        self.actors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn handle(&self, id: &InstanceId) -> Result<Handle, OpError> {
        self.actors().get(id).cloned().ok_or(OpError::NotFound)
    }

    /// The directories of all instances that have an actor.
    #[must_use]
    pub fn directories(&self) -> Vec<super::InstanceDir> {
        let actors = self.actors();
        actors
            .keys()
            .map(|id| self.ctx.layout.instance(id))
            .collect()
    }

    /// Which instances have changed.
    #[must_use]
    pub fn changes(&self) -> &Changes {
        &self.ctx.changes
    }

    /// Where instances are connected.
    #[must_use]
    pub fn network(&self) -> &Networking {
        &self.ctx.network
    }

    /// Finds an instance by id, name or unique id prefix.
    pub async fn find(&self, key: &str) -> Result<InstanceId, OpError> {
        let text = key.to_owned();
        match self.ctx.store.run(move |store| store.find(&text)).await? {
            Found::One(id) => Ok(id),
            Found::Ambiguous(count) => Err(OpError::Ambiguous(count)),
            Found::Nothing => Err(OpError::NotFound),
        }
    }

    /// Sends a command and waits for its end. The actor carries it out even if the
    /// caller stops waiting.
    pub(super) async fn call(&self, id: &InstanceId, command: Command) -> Result<Outcome, OpError> {
        let handle = match self.handle(id) {
            Ok(handle) => handle,
            Err(missing) => {
                // A record that cannot be read has no actor; that is the better answer.
                let key = id.clone();
                self.ctx
                    .store
                    .run(move |store| store.instance(&key))
                    .await?;
                return Err(missing);
            }
        };
        send(&handle, command).await
    }

    /// Boots a stopped instance.
    pub async fn start(&self, id: &InstanceId, overrides: StartOverrides) -> Result<(), OpError> {
        self.call(id, Command::Start(overrides)).await.map(drop)
    }

    /// Powers an instance off.
    pub async fn stop(&self, id: &InstanceId) -> Result<(), OpError> {
        self.call(id, Command::Stop).await.map(drop)
    }

    /// Puts an instance in standby.
    pub async fn standby(&self, id: &InstanceId) -> Result<(), OpError> {
        self.call(id, Command::Standby).await.map(drop)
    }

    /// Wakes an instance from standby.
    pub async fn restore(&self, id: &InstanceId) -> Result<(), OpError> {
        self.call(id, Command::Restore).await?;
        self.ctx.changes.settled().await;
        Ok(())
    }

    /// Marks an instance as template.
    pub async fn promote(&self, id: &InstanceId) -> Result<(), OpError> {
        self.call(id, Command::Promote).await.map(drop)
    }

    /// Removes the template mark.
    pub async fn demote(&self, id: &InstanceId) -> Result<(), OpError> {
        self.call(id, Command::Demote).await.map(drop)
    }

    /// Ends the forks that are prepared ahead, before the daemon stops: the next one
    /// could not know them. A template that is busy is left to the next start.
    pub async fn drop_warm(&self) {
        let handles: Vec<Handle> = self.actors().values().cloned().collect();
        let pools = handles
            .iter()
            .filter(|handle| handle.published.borrow().state == State::Template)
            .map(|handle| send(handle, Command::DropWarm));
        futures::future::join_all(pools).await;
    }

    /// Changes a record.
    pub async fn update(&self, id: &InstanceId, patch: Patch) -> Result<(), OpError> {
        self.call(id, Command::Update(patch)).await.map(drop)
    }

    /// Removes an instance; `graceful` lets its program end first.
    pub async fn delete(&self, id: &InstanceId, graceful: bool) -> Result<(), OpError> {
        self.call(id, Command::Delete { graceful }).await.map(drop)
    }

    /// Deletes what has expired. A locked template stays until its forks are gone.
    pub async fn reap(&self) -> Result<(), OpError> {
        let now = (self.ctx.now)();
        for id in self.ctx.store.run(move |store| store.expired(now)).await? {
            match self.delete(&id, true).await {
                Ok(()) => info!(instance = %id, "expired and deleted"),
                Err(OpError::Refused(_) | OpError::NotFound | OpError::Busy) => {}
                Err(failed) => {
                    error!(instance = %id, why = %chain(&failed), "cannot delete an expired instance");
                }
            }
        }
        Ok(())
    }
}

/// Sends a command to an actor and waits for the answer.
pub(super) async fn send(handle: &Handle, command: Command) -> Result<Outcome, OpError> {
    let (reply, answer) = oneshot::channel();
    handle
        .mailbox
        .try_send(Envelope { command, reply })
        .map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => OpError::Busy,
            mpsc::error::TrySendError::Closed(_) => OpError::NotFound,
        })?;
    // The actor ends without an answer only when it deletes itself in the turn before.
    answer.await.map_err(|_| OpError::NotFound)?
}
