//! All instances: who they are, and the way to their actors.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{StreamExt as _, stream};
use hypervisor::KernelFormat;
use model::{Compression, InstanceId, InstanceRecord, State, VmmFact};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info};

use super::actor::Actor;
use super::changes::Changes;
use super::command::{Command, Envelope, ForkMemory, MAILBOX, Outcome, Patch, StartOverrides};
use super::context::Context;
use super::drivers::Drivers;
use super::pagers::Pagers;
use super::published::Published;
use super::slot::Networking;
use super::sweep::{Swept, sweep};
use super::{OpError, chain};
use crate::store::{Found, StoreError};

/// Instances that are brought in step at one time after a restart.
const PARALLEL_RECOVERIES: usize = 16;

/// How long templates may take to end their warm forks when their slots are needed.
const YIELD_DEADLINE: Duration = Duration::from_secs(30);

/// Panics of one instance's actors after which the next one waits for a request before it
/// looks at the world.
const MOST_PANICS: u32 = 3;

/// The handle of one actor.
#[derive(Clone)]
pub(super) struct Handle {
    mailbox: mpsc::Sender<Envelope>,
    pub(super) published: watch::Receiver<Published>,
}

impl Handle {
    /// Why there is no answer: an actor ends when its instance does, or by a defect.
    pub(super) fn without_actor(&self) -> OpError {
        if self.published.borrow().deleted {
            OpError::NotFound
        } else {
            OpError::Broken
        }
    }
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
        ctx.everybody.set(&all);
        ctx.pagers.find().await;
        let entries = ctx.store.run(|store| store.instances()).await?;
        let mut known = HashSet::new();
        let mut records = Vec::new();
        for entry in entries {
            match entry {
                Ok(entry) => {
                    known.insert(entry.record.id.to_string());
                    records.push(entry.record);
                }
                Err(StoreError::BadRecord { id, why }) => {
                    error!(instance = %id, %why, "a record cannot be read; the instance is left as it is");
                    known.insert(id);
                }
                Err(other) => return Err(other.into()),
            }
        }
        let swept = sweep(&ctx, &known).await?;
        let promoting: Vec<InstanceId> = records
            .iter()
            .filter(|record| record.promoting)
            .map(|record| record.id.clone())
            .collect();
        stream::iter(records)
            .for_each_concurrent(PARALLEL_RECOVERIES, |record| all.recover(record))
            .await;
        // Forks that were not promised to anybody are gone by now.
        for source in promoting {
            all.settle_promotion(&source, false).await;
        }
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
        self.watch_over(id, actor.run(receiver), 0);
        handle
    }

    /// Runs an actor. One that ends is forgotten; in place of one that panicked comes
    /// another, which finds out where things stand as after a restart of the daemon.
    fn watch_over(
        self: &Arc<Self>,
        id: InstanceId,
        life: impl Future<Output = ()> + Send + 'static,
        panics: u32,
    ) {
        let all = Arc::downgrade(self);
        let life = tokio::spawn(life);
        tokio::spawn(async move {
            let ended = life.await;
            let Some(all) = all.upgrade() else { return };
            match ended {
                Err(failed) if failed.is_panic() => all.replace_actor(id, panics + 1).await,
                _ => drop(all.actors().remove(&id)),
            }
        });
    }

    /// The type of the future is written out because it holds itself.
    fn replace_actor(self: Arc<Self>, id: InstanceId, panics: u32) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            error!(instance = %id, panics, "the actor of an instance panicked: a defect of coppiced");
            let key = id.clone();
            let record = match self.ctx.store.run(move |store| store.instance(&key)).await {
                Ok(entry) => entry.record,
                Err(StoreError::NotFound) => return drop(self.actors().remove(&id)),
                Err(failed) => {
                    // Its handle stays: requests are told that the instance has no actor.
                    return error!(instance = %id, why = %chain(&failed), "it gets no other one");
                }
            };
            let (mut actor, published) = Actor::new(Arc::clone(&self.ctx), record);
            actor.vmm = VmmFact::Unreadable(format!(
                "coppiced failed at work on it {panics} times; see the daemon's log"
            ));
            actor.unread = true;
            actor.show();
            let (mailbox, receiver) = mpsc::channel(MAILBOX);
            let handle = Handle { mailbox, published };
            self.actors().insert(id.clone(), handle);
            let life = async move {
                // What fails again and again is not tried for ever, but with each request.
                if panics <= MOST_PANICS {
                    actor.recover().await;
                    // Now that no VMM is left that nobody would keep.
                    actor.release_lost_slots().await;
                }
                actor.run(receiver).await;
            };
            self.watch_over(id, life, panics);
        })
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

    /// What instances run on.
    #[must_use]
    pub fn drivers(&self) -> &Drivers {
        &self.ctx.drivers
    }

    /// Whether there is a guest kernel for VMMs that boot images of this form.
    #[must_use]
    pub fn has_kernel(&self, format: KernelFormat) -> bool {
        let boot = self.ctx.boot.as_ref();
        boot.is_some_and(|boot| boot.kernel(format).is_some())
    }

    /// What fills the memory of machines page by page.
    #[must_use]
    pub fn pagers(&self) -> &Arc<Pagers> {
        &self.ctx.pagers
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
        self.call(id, Command::Start(overrides)).await?;
        self.ctx.changes.settled().await;
        Ok(())
    }

    /// Powers an instance off.
    pub async fn stop(&self, id: &InstanceId) -> Result<(), OpError> {
        self.call(id, Command::Stop).await?;
        self.ctx.changes.settled().await;
        Ok(())
    }

    /// Puts an instance in standby. `compression` is of this memory image; none = as the instance or the server says.
    pub async fn standby(
        &self,
        id: &InstanceId,
        compression: Option<Compression>,
    ) -> Result<(), OpError> {
        self.call(id, Command::Standby(compression)).await?;
        self.ctx.changes.settled().await;
        Ok(())
    }

    /// Wakes an instance from standby.
    pub async fn restore(&self, id: &InstanceId) -> Result<(), OpError> {
        self.call(id, Command::Restore).await?;
        self.ctx.changes.settled().await;
        Ok(())
    }

    /// Marks an instance as template; `forks` holds for its forks to come.
    pub async fn promote(&self, id: &InstanceId, forks: ForkMemory) -> Result<(), OpError> {
        self.call(id, Command::Promote(forks)).await.map(drop)
    }

    /// Notes that a command has run in the guest: what a fork touches until its first one is hot.
    pub fn executed(&self, id: &InstanceId) {
        let Ok(handle) = self.handle(id) else { return };
        let published = handle.published.borrow();
        if let Some(paged) = &published.paged {
            paged.executed();
        }
        if let Some(mapped) = &published.mapped {
            mapped.executed();
        }
    }

    /// Removes the template mark.
    pub async fn demote(&self, id: &InstanceId) -> Result<(), OpError> {
        self.call(id, Command::Demote).await.map(drop)
    }

    /// Ends the forks that are prepared ahead, before the daemon stops: the next one
    /// could not know them. A template that is busy is left to the next start.
    pub async fn drop_warm(&self) {
        self.end_warm(false).await;
    }

    /// Ends those that have slots on the network, because a machine that somebody asked for needs one.
    pub(super) async fn yield_slots(&self) {
        // A template that is busy for longer keeps its own.
        let _ = tokio::time::timeout(YIELD_DEADLINE, self.end_warm(true)).await;
    }

    async fn end_warm(&self, seated: bool) {
        let handles: Vec<Handle> = self.actors().values().cloned().collect();
        let pools = handles
            .iter()
            .filter(|handle| handle.published.borrow().state == State::Template)
            .map(|handle| send(handle, Command::DropWarm { seated }));
        futures::future::join_all(pools).await;
    }

    /// Changes a record.
    pub async fn update(&self, id: &InstanceId, patch: Patch) -> Result<(), OpError> {
        self.call(id, Command::Update(patch)).await?;
        self.ctx.changes.settled().await;
        Ok(())
    }

    /// Removes an instance; `graceful` lets its program end first.
    pub async fn delete(&self, id: &InstanceId, graceful: bool) -> Result<(), OpError> {
        self.call(id, Command::Delete { graceful }).await?;
        self.ctx.changes.settled().await;
        Ok(())
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
            mpsc::error::TrySendError::Closed(_) => handle.without_actor(),
        })?;
    answer.await.map_err(|_| handle.without_actor())?
}
