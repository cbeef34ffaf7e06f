//! The actor of one instance: the only task that changes it.
//!
//! ```text
//!   HTTP ──▶ mailbox ─┐
//!   VMM exit ─────────┤        ┌─▶ operations (start, standby, fork, …)
//!   guest power-off ──┼─▶ next ┤
//!   agent is up ──────┤        └─▶ publish: derived state, for every reader
//!   agent event ──────┘
//! ```
//!
//! Operations run to their end inside the actor, one after the other, each with a
//! deadline; only the long boot of a guest runs beside it, so that a booting machine
//! can be stopped. What is allowed is decided by the pure rules of `model`; what to do
//! after a crash by the intent that each operation records before its first deed.

mod known;

use std::sync::Arc;
use std::time::Instant;

use guest::{Events, Link};
use hypervisor::{TemplateHold, Vm, VmStatus};
use memory::StoredRam;
use model::{
    Facts, GuestFact, ImageId, InstanceId, InstanceRecord, Intent, Operation, Refusal, State,
    Verdict, VmmFact, admit, derive,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::command::{Command, Envelope, Outcome};
use super::context::{Context, LINK_DEADLINE};
use super::journal::Journal;
use super::layout::InstanceDir;
use super::pagers::{Mapped, Paged};
use super::published::Published;
use super::waiting::{Wake, joined};
use super::warm::WarmPool;
use super::{OpError, chain};
use crate::store::{Store, StoreError};
use known::{Known, facts};

/// A guest whose agent has answered.
pub(super) struct Up {
    /// The line to the agent.
    pub link: Link,
    /// What the agent reports unasked.
    pub events: Events,
}

/// The actor's whole state.
pub(super) struct Actor {
    pub ctx: Arc<Context>,
    pub id: InstanceId,
    pub dir: InstanceDir,
    /// As it was last written.
    pub record: InstanceRecord,
    pub vm: Option<Arc<dyn Vm>>,
    /// It gets its memory from a pager.
    pub paged: Option<Arc<Paged>>,
    /// It maps its template's memory.
    pub mapped: Option<Arc<Mapped>>,
    /// As it was last seen.
    pub vmm: VmmFact,
    pub guest: GuestFact,
    pub link: Option<Link>,
    pub events: Option<Events>,
    /// The guest on its way up.
    pub bring_up: Option<JoinHandle<Result<Up, OpError>>>,
    /// There may be a VMM, but it could not be looked at; each command tries again.
    pub unread: bool,
    /// Keeps a template's memory loaded.
    pub hold: Option<Box<dyn TemplateHold>>,
    /// Forks that are prepared ahead.
    pub warm: WarmPool,
    pub journal: Journal,
    /// The image that was looked at last: none of them ever changes.
    seen_image: Option<(ImageId, StoredRam)>,
    publish: watch::Sender<Published>,
    gone: bool,
}

impl Actor {
    /// An actor for `record`, with nothing known of a VMM yet.
    pub(super) fn new(
        ctx: Arc<Context>,
        record: InstanceRecord,
    ) -> (Self, watch::Receiver<Published>) {
        let id = record.id.clone();
        let dir = ctx.layout.instance(&id);
        let (publish, published) = watch::channel(Published {
            generation: 0,
            // What it was when it was last heard of; the first look corrects it.
            state: record.phases.current,
            state_error: None,
            busy: false,
            deleted: false,
            phases: record.phases.clone(),
            link: None,
            vm: None,
            paged: None,
            mapped: None,
            held_bytes: 0,
            image: None,
            warm: Vec::new(),
        });
        let journal = Journal::new(&dir);
        let actor = Self {
            ctx,
            id,
            dir,
            record,
            vm: None,
            paged: None,
            mapped: None,
            vmm: VmmFact::Absent,
            guest: GuestFact::NotReady,
            link: None,
            events: None,
            bring_up: None,
            unread: false,
            hold: None,
            warm: WarmPool::default(),
            journal,
            seen_image: None,
            publish,
            gone: false,
        };
        (actor, published)
    }

    /// Serves until the instance is deleted or nobody can send any more.
    pub(super) async fn run(mut self, mut mailbox: mpsc::Receiver<Envelope>) {
        while !self.gone {
            match self.next(&mut mailbox).await {
                Wake::Command(envelope) => self.serve(envelope).await,
                Wake::VmmExited(reason) => self.vmm_exited(&reason).await,
                Wake::PoweredOff => self.powered_off().await,
                Wake::GuestUp(result) => self.guest_up(result).await,
                Wake::Guest(event) => self.guest_event(event).await,
                Wake::Warm(news) => self.warm_news(news).await,
                Wake::NoMoreSenders => return,
            }
        }
    }

    async fn serve(&mut self, envelope: Envelope) {
        let began = Instant::now();
        let name = envelope.command.name();
        // Whoever waits for a state must not take the one before the operation for the end.
        self.show_busy();
        if self.unread {
            self.recover().await;
        }
        let result = if self.gone {
            Err(OpError::NotFound)
        } else {
            self.carry_out(envelope.command).await
        };
        let elapsed = began.elapsed();
        let vmm = &self.record.spec.hypervisor;
        crate::metrics::operation(name, vmm, result.is_ok(), elapsed);
        match &result {
            Ok(_) => {
                info!(instance = %self.id, operation = name, ms = elapsed.as_millis(), "done");
                self.journal.done(name, elapsed);
            }
            Err(error) => {
                let why = chain(error);
                warn!(instance = %self.id, operation = name, ms = elapsed.as_millis(), %why, "failed");
                self.journal.failed(name, elapsed, &why);
            }
        }
        self.show();
        // Whoever asked may have gone; the work is done all the same.
        let _ = envelope.reply.send(result);
    }

    async fn carry_out(&mut self, command: Command) -> Result<Outcome, OpError> {
        if self.record.intent == Some(Intent::Delete) && !command.fits_a_deletion() {
            return Err(Refusal::state(
                "a deletion of this instance was begun and could not be finished; delete it again",
            )
            .into());
        }
        match command {
            Command::Fork(order) => {
                let made = self.make_forks(*order).await?;
                return Ok(Outcome::Forks(made));
            }
            Command::Create => self.create().await?,
            Command::Update(patch) => self.update(patch).await?,
            Command::BecomeFork(birth) => self.become_fork(*birth).await?,
            Command::Start(overrides) => {
                let operation = Operation::Start {
                    overrides: overrides.any(),
                };
                if self.allowed(operation).await? {
                    self.start(overrides).await?;
                }
            }
            Command::Stop => {
                if self.allowed(Operation::Stop).await? {
                    self.stop().await?;
                }
            }
            Command::Standby(compression) => {
                let operation = Operation::Standby {
                    options: compression.is_some(),
                };
                if self.allowed(operation).await? {
                    self.standby(compression).await?;
                }
            }
            Command::Restore => {
                if self.allowed(Operation::Restore).await? {
                    self.restore().await?;
                }
            }
            Command::Promote(forks) => self.promote(forks).await?,
            Command::Demote => self.demote().await?,
            Command::SettlePromotion { lived } => self.settle_promotion(lived).await?,
            Command::DropWarm { seated } => {
                if !seated || self.record.spec.network.enabled {
                    self.drop_warm().await;
                }
            }
            Command::Delete { graceful } => self.delete(graceful).await?,
        }
        Ok(Outcome::Done)
    }

    /// Whether the rules let `operation` proceed; false for "it is so already".
    pub(super) async fn allowed(&mut self, operation: Operation) -> Result<bool, OpError> {
        let id = self.id.clone();
        let forks = self
            .ctx
            .store
            .run(move |store| store.live_forks(&id))
            .await?;
        self.look().await;
        let (state, what_is_wrong) = derive(&self.facts());
        match (admit(operation, state, forks), what_is_wrong) {
            // Unknown alone helps nobody: what contradicts what is the answer.
            (Err(refusal), Some(wrong)) => {
                Err(Refusal::state(format!("{refusal}: {wrong}")).into())
            }
            (verdict, _) => Ok(verdict? == Verdict::Proceed),
        }
    }

    /// The state as the facts give it now.
    pub(super) fn state(&self) -> State {
        derive(&self.facts()).0
    }

    /// The facts as far as the actor knows them.
    pub(super) fn facts(&self) -> Facts {
        facts(&self.record, self.vmm.clone(), self.guest, &self.dir)
    }

    /// Asks the VMM how it is.
    pub(super) async fn look(&mut self) {
        if self.unread {
            return;
        }
        self.vmm = match &self.vm {
            None => VmmFact::Absent,
            Some(vm) => match vm.status().await {
                Ok(VmStatus::Prelaunch) => VmmFact::Created,
                Ok(VmStatus::Running) => VmmFact::Running,
                Ok(VmStatus::Paused) => VmmFact::Paused,
                Ok(VmStatus::Shutdown) => VmmFact::Shutdown,
                Err(error) => VmmFact::Unreadable(chain(&error)),
            },
        };
    }

    /// Publishes what is known now.
    pub(super) fn show(&mut self) {
        self.show_with(false);
    }

    /// Publishes what is known now, in the middle of an operation.
    pub(super) fn show_busy(&mut self) {
        self.show_with(true);
    }

    fn show_with(&mut self, busy: bool) {
        let (state, state_error) = derive(&self.facts());
        self.record.phases.enter(state, (self.ctx.now)());
        let phases = self.record.phases.clone();
        let link = self.link.clone();
        let vm = self.vm.clone();
        let (paged, mapped) = (self.paged.clone(), self.mapped.clone());
        let held_bytes = self.hold.as_ref().map_or(0, |hold| hold.resident_bytes());
        let image = self.sleeping_on();
        let warm = self.warm.vms();
        let deleted = self.gone;
        self.publish.send_modify(|published| {
            *published = Published {
                generation: published.generation + 1,
                state,
                state_error,
                busy,
                deleted,
                phases,
                link,
                vm,
                paged,
                mapped,
                held_bytes,
                image,
                warm,
            };
        });
        self.ctx.changes.mark(&self.id);
    }

    /// How the image is stored that it would wake from, unless that cannot be read.
    fn sleeping_on(&mut self) -> Option<StoredRam> {
        let id = self.record.standby.as_ref()?;
        if let Some((seen, stored)) = &self.seen_image
            && seen == id
        {
            return Some(*stored);
        }
        let stored = memory::Image::open(&self.dir.image(id))
            .and_then(|image| image.stored_ram())
            .ok()?;
        self.seen_image = Some((id.clone(), stored));
        Some(stored)
    }

    /// Writes the record. `change` sees it as it is in the database and may refuse. The
    /// time in each state is written with it.
    pub(super) async fn save<F>(&mut self, change: F) -> Result<(), OpError>
    where
        F: FnOnce(&mut InstanceRecord) -> Result<(), StoreError> + Send + 'static,
    {
        let (id, known) = (self.id.clone(), self.known());
        let work = move |store: &Store| store.update(&id, |record| known.around(record, change));
        let (record, ()) = self.ctx.store.run(work).await?;
        self.record = record;
        Ok(())
    }

    /// As [`Actor::save`], for a change that depends on the number of live forks: refused
    /// where one of their records cannot be read.
    pub(super) async fn save_counted<F>(&mut self, change: F) -> Result<(), OpError>
    where
        F: FnOnce(&mut InstanceRecord, u64) -> Result<(), StoreError> + Send + 'static,
    {
        let (id, known) = (self.id.clone(), self.known());
        let work = move |store: &Store| {
            store.update_counted(&id, |record, forks| {
                known.around(record, |record| change(record, forks))
            })
        };
        let (record, ()) = self.ctx.store.run(work).await?;
        self.record = record;
        Ok(())
    }

    fn known(&self) -> Known {
        Known {
            phases: self.record.phases.clone(),
            lease: self.record.lease,
            vmm: self.vmm.clone(),
            guest: self.guest,
            dir: self.dir.clone(),
            now: (self.ctx.now)(),
        }
    }

    /// Forgets the VM and the guest in it, after the process has ended.
    pub(super) fn forget_vm(&mut self) {
        if let Some(task) = self.bring_up.take() {
            task.abort();
        }
        self.vm = None;
        self.paged = None;
        self.mapped = None;
        self.vmm = VmmFact::Absent;
        self.guest = GuestFact::NotReady;
        self.link = None;
        self.events = None;
    }

    /// Takes a guest whose agent has answered and whose program runs.
    pub(super) fn take_guest(&mut self, up: Up) {
        self.link = Some(up.link);
        self.events = Some(up.events);
        self.guest = GuestFact::Ready;
    }

    /// The line to the agent; waits for it while it is being made anew.
    pub(super) async fn linked(&mut self) -> Result<Link, OpError> {
        if self.link.is_none() {
            let up = tokio::time::timeout(LINK_DEADLINE, joined(&mut self.bring_up))
                .await
                .map_err(|_| OpError::Timeout("waiting for the guest's agent"))??;
            self.take_guest(up);
        }
        self.link.clone().ok_or(OpError::NotFound)
    }

    /// Marks the instance as gone: the actor ends after this request.
    pub(super) fn end(&mut self) {
        self.gone = true;
    }
}
