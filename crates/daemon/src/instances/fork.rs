//! Making forks: the part that happens in the source's turn.
//!
//! In order: decide (pure), capture if the source runs, record all forks in one
//! transaction together with a promotion, then give each fork its bytes (hard links).
//! When the turn ends every fork owns what it needs; nothing the source does later can
//! take it away. The forks then come to life in actors of their own, side by side.

use std::collections::VecDeque;

use hypervisor::RamUse;
use memory::{How, Image, Owned};
use model::{
    Backend, Compression, ForkMode, ForkPlan, ImageId, InstanceId, InstanceRecord, Intent,
    MemoryMode, MemoryOrigin, Name, PolicyPatch, Target, VmmFact, fork_names, inherit, plan_fork,
};
use tracing::warn;

use super::actor::Actor;
use super::blocking::{blocking, blocking_op};
use super::command::{Birth, ForkOrder, ForkSlot, MadeForks};
use super::layout::InstanceDir;
use super::pagers::HotOrder;
use super::restoring::check_vmm;
use super::warm::WarmFork;
use super::{OpError, chain, disk};
use crate::entropy;
use crate::store::{ForkRow, StoreError};

/// What is made, and what its RAM comes from.
type Planned = (ForkPlan, Backend);

impl Actor {
    /// Records the forks of one request and hands them their bytes.
    pub(super) async fn make_forks(&mut self, order: ForkOrder) -> Result<MadeForks, OpError> {
        let own = &self.record.spec.hypervisor;
        if let Some(other) = order.hypervisor.as_ref().filter(|wanted| *wanted != own) {
            return Err(model::Refusal::request(format!(
                "a fork continues the memory of its source, whose hypervisor is {own}, not {other}"
            ))
            .into());
        }
        self.look().await;
        let plan = plan_fork(order.ask, self.state())?;
        let names = fork_names(&order.name, plan.count)?;
        let backend = self.fork_backend(order.memory_backend, plan).await?;
        let slots = self.make_planned(&order, (plan, backend), names).await;
        if !self.record.template {
            // Only templates keep their memory loaded, and this did not become one.
            self.hold = None;
        } else if plan.target == Target::Running {
            self.refill_warm().await;
        }
        Ok(MadeForks {
            slots: slots?,
            promoted: plan.mode == (ForkMode::Share { promote: true }),
        })
    }

    async fn make_planned(
        &mut self,
        order: &ForkOrder,
        plan: Planned,
        names: Vec<Name>,
    ) -> Result<Vec<ForkSlot>, OpError> {
        match plan.0.mode {
            ForkMode::Share { .. } => {
                // Pagers read the files themselves.
                if plan.1 == Backend::File {
                    self.ensure_hold().await?;
                }
                let image = self.record.standby.clone().ok_or(OpError::NotFound)?;
                self.fork_from_image(order, plan, names, Some(image)).await
            }
            ForkMode::Copy => {
                let image = self.record.standby.clone().ok_or(OpError::NotFound)?;
                self.fork_from_image(order, plan, names, Some(image)).await
            }
            ForkMode::Disk => self.fork_from_image(order, plan, names, None).await,
            ForkMode::Capture => self.fork_running(order, plan, names).await,
        }
    }

    /// Captures the running machine, forks from the capture, and removes it. The source
    /// runs on whatever happens to the forks.
    async fn fork_running(
        &mut self,
        order: &ForkOrder,
        plan: Planned,
        names: Vec<Name>,
    ) -> Result<Vec<ForkSlot>, OpError> {
        let image = entropy::image_id();
        self.save(|record| {
            record.intent = Some(Intent::Capture);
            Ok(())
        })
        .await?;
        let captured = self.capture_running(&image).await;
        self.clear_intent().await;
        let result = match captured {
            Ok(()) => {
                self.fork_from_image(order, plan, names, Some(image.clone()))
                    .await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = disk::remove_image(&self.dir.image(&image)) {
            warn!(instance = %self.id, why = %chain(&error), "a capture is left for the next sweep");
        }
        result
    }

    /// The guest stands still only while its state and its changed pages are copied;
    /// hashing and writing to the disk happen when it runs again.
    async fn capture_running(&mut self, image: &ImageId) -> Result<(), OpError> {
        let vm = self.running_vm()?;
        if let Err(error) = self.quiesce().await {
            self.thaw().await;
            return Err(error);
        }
        let began = std::time::Instant::now();
        if let Err(error) = vm.pause().await {
            self.wake_paused().await;
            return Err(error.into());
        }
        self.vmm = VmmFact::Paused;
        self.show_busy();
        // For the forks alone, which read it at once: nothing that would keep the source waiting pays.
        let written = (How::Copy, Compression::Off);
        let captured = self.capture(&vm, image, written).await;
        let resumed = vm.resume().await;
        if resumed.is_err() {
            self.wake_paused().await;
        }
        let paused = began.elapsed();
        self.thaw().await;
        crate::metrics::source_paused(paused);
        self.journal
            .note(&format!("paused for a fork for {} ms", paused.as_millis()));
        self.look().await;
        self.show_busy();
        if self.vmm != VmmFact::Running {
            resumed?;
        }
        let (draft, facts) = captured?;
        blocking(move || draft.finish(facts)).await?;
        Ok(())
    }

    async fn fork_from_image(
        &mut self,
        order: &ForkOrder,
        (plan, backend): Planned,
        names: Vec<Name>,
        image: Option<ImageId>,
    ) -> Result<Vec<ForkSlot>, OpError> {
        let mut warm = match (plan.mode, plan.target) {
            (ForkMode::Share { .. }, Target::Running) => self.take_warm(names.len(), backend).await,
            _ => VecDeque::new(),
        };
        let ids: Vec<InstanceId> = warm.iter().map(|fork| fork.id.clone()).collect();
        let rows = match self
            .record_forks(order, (plan, backend), names, ids, image.as_ref())
            .await
        {
            Ok(rows) => rows,
            Err(error) => {
                warm.into_iter().for_each(|fork| self.return_warm(fork));
                return Err(error);
            }
        };
        let mut given = Vec::with_capacity(rows.len());
        for row in rows {
            match (warm.pop_front(), &row.refused) {
                (Some(fork), Some(_)) => {
                    self.return_warm(fork);
                    given.push((row, None));
                }
                (fork, _) => given.push((row, fork)),
            }
        }
        let orders = self.hot_orders(plan, image.as_ref(), &given);
        let source = self.dir.clone();
        let layout = self.ctx.layout.clone();
        let vmm = self.record.spec.hypervisor.clone();
        let slots = blocking_op(move || {
            let give = |((row, warm), hot): ((ForkRow, Option<WarmFork>), Option<HotOrder>)| {
                let dir = layout.instance(&row.record.id);
                let name = row.record.name.clone();
                let handed = match (row.refused, &warm) {
                    (Some(error), _) => Err(error.into()),
                    // It got its bytes when it was made.
                    (None, Some(_)) => Ok(Owned::Linked),
                    (None, None) => hand_over(&source, image.as_ref(), &vmm, &dir, plan.target),
                };
                let made = handed.map(|owned| {
                    let birth = Birth {
                        ram: ram_use(plan),
                        backend,
                        hot: hot.filter(|_| warm.is_none()),
                        target: plan.target,
                        warm,
                        owned,
                    };
                    (row.record.clone(), birth)
                });
                (row.record, ForkSlot { name, made })
            };
            Ok(given.into_iter().zip(orders).map(give).collect::<Vec<_>>())
        })
        .await?;
        let mut answer = Vec::with_capacity(slots.len());
        for (record, slot) in slots {
            if matches!(&slot.made, Err(error) if !matches!(error, OpError::NameTaken(_))) {
                self.unmake(&record).await;
            }
            answer.push(slot);
        }
        Ok(answer)
    }

    /// What each fork is to have of the hot pages; a machine that was prepared has had it.
    fn hot_orders(
        &self,
        plan: ForkPlan,
        image: Option<&ImageId>,
        given: &[(ForkRow, Option<WarmFork>)],
    ) -> Vec<Option<HotOrder>> {
        let image = image.filter(|_| matches!(plan.mode, ForkMode::Share { .. }));
        let prefetch = self.record.spec.memory.prefetch;
        let order = |warm: &Option<WarmFork>| match (warm, image) {
            (None, Some(image)) => {
                Some(self.ctx.pagers.hot_order(&self.dir, image, prefetch, false))
            }
            _ => None,
        };
        given.iter().map(|(_, warm)| order(warm)).collect()
    }

    /// One transaction: the promotion, if the plan has one, and every fork's record.
    async fn record_forks(
        &mut self,
        order: &ForkOrder,
        (plan, backend): Planned,
        names: Vec<Name>,
        warm: Vec<InstanceId>,
        image: Option<&ImageId>,
    ) -> Result<Vec<ForkRow>, OpError> {
        let now = (self.ctx.now)();
        let parent = matches!(plan.mode, ForkMode::Share { .. }).then(|| self.id.clone());
        let mut heir_of = order.heir_of.as_deref().unwrap_or(&self.record).clone();
        // Memory fits only the machine that it was taken from.
        heir_of.spec.size = self.record.spec.size;
        heir_of.spec.vcpus = self.record.spec.vcpus;
        heir_of.spec.overlay_size = self.record.spec.overlay_size;
        heir_of.spec.network.enabled = self.record.spec.network.enabled;
        if !heir_of.spec.network.enabled && order.network != PolicyPatch::default() {
            return Err(model::Refusal::request(
                "the source has no network, so nothing can be said about that of a fork",
            )
            .into());
        }
        let ids = warm
            .into_iter()
            .chain(std::iter::repeat_with(entropy::instance_id));
        let records = names
            .into_iter()
            .zip(ids)
            .map(|(name, id)| {
                let memory = memory_of(plan, backend, image);
                let mut record = inherit(&heir_of, id, name, parent.clone(), memory, now);
                record.spec.env.extend(order.env.clone());
                record.spec.memory.backend = order.memory_backend.or(record.spec.memory.backend);
                let network = &mut record.spec.network;
                network.policy = order.network.applied_to(&network.policy);
                if let Some(tags) = &order.tags {
                    record.spec.tags.clone_from(tags);
                }
                if order.post_fork.is_some() {
                    record.spec.post_fork.clone_from(&order.post_fork);
                }
                record
            })
            .collect();
        let source = self.id.clone();
        let expected = self.record.clone();
        let (record, rows) = self
            .ctx
            .store
            .run(move |store| {
                store.insert_forks(
                    &source,
                    |record| settle_source(record, &expected, plan),
                    records,
                )
            })
            .await?;
        self.record = record;
        Ok(rows)
    }

    /// Removes a fork that was recorded but got no bytes.
    async fn unmake(&self, record: &InstanceRecord) {
        let dir = self.ctx.layout.instance(&record.id);
        let id: InstanceId = record.id.clone();
        if let Err(error) = disk::remove_tree(dir.root()) {
            warn!(instance = %id, why = %chain(&error), "files of a failed fork are left for the next sweep");
        }
        let removed = self.ctx.store.run(move |store| store.remove(&id)).await;
        if let Err(error) = removed {
            warn!(instance = %record.id, why = %chain(&error), "the record of a failed fork is left for the next start");
        }
    }
}

/// Checks, inside the transaction, that the source is what the decision was made on,
/// and promotes it if the plan says so.
fn settle_source(
    record: &mut InstanceRecord,
    expected: &InstanceRecord,
    plan: ForkPlan,
) -> Result<(), StoreError> {
    let same = record.template == expected.template
        && record.standby == expected.standby
        && record.intent == expected.intent;
    if !same {
        return Err(model::Refusal::state("the source changed while it was being forked").into());
    }
    if plan.mode == (ForkMode::Share { promote: true }) {
        record.template = true;
        record.promoting = true;
    }
    Ok(())
}

fn memory_of(plan: ForkPlan, backend: Backend, image: Option<&ImageId>) -> MemoryOrigin {
    let mode = match (plan.mode, plan.target) {
        (_, Target::Stopped) | (ForkMode::Disk, _) => return MemoryOrigin::booted(),
        (ForkMode::Copy, _) => MemoryMode::Copied,
        (ForkMode::Share { .. } | ForkMode::Capture, _) => MemoryMode::Shared,
    };
    MemoryOrigin {
        mode,
        image_id: image.cloned(),
        backend: Some(backend),
    }
}

fn ram_use(plan: ForkPlan) -> Option<RamUse> {
    match (plan.mode, plan.target) {
        (_, Target::Stopped) | (ForkMode::Disk, _) => None,
        (ForkMode::Share { .. }, _) => Some(RamUse::Fork),
        (ForkMode::Copy, _) => Some(RamUse::Copied),
        (ForkMode::Capture, _) => Some(RamUse::Own),
    }
}

/// Gives a fork its own links to the bytes it is made of, and says how its memory image,
/// which must be of the VMM called `vmm`, came over.
pub(super) fn hand_over(
    source: &InstanceDir,
    image: Option<&ImageId>,
    vmm: &str,
    dir: &InstanceDir,
    target: Target,
) -> Result<Owned, OpError> {
    for part in [dir.run(), dir.logs(), dir.memory()] {
        std::fs::create_dir_all(part)
            .map_err(OpError::disk("cannot create the fork's directory"))?;
    }
    let Some(image) = image else {
        disk::copy_of(source, dir)?;
        return Ok(Owned::Linked);
    };
    let image_source = Image::open(&source.image(image))?;
    check_vmm(&image_source, vmm)?;
    if target == Target::Stopped {
        disk::from_image(dir, &image_source)?;
        return Ok(Owned::Linked);
    }
    let (_, owned) = image_source.link_into(&dir.image(image))?;
    Ok(owned)
}
