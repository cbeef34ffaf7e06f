//! A fork coming to life, in its own actor.

use hypervisor::RamUse;
use memory::{Image, Owned};
use model::{ImageId, InstanceRecord, Intent, MemoryMode, Target};

use tracing::info;

use super::actor::{Actor, Up};
use super::blocking::blocking_op;
use super::command::Birth;
use super::context::RESUME_DEADLINE;
use super::fork::hand_over;
use super::restoring::{Source, not_resumed};
use super::standby::now_awake;
use super::warm::{Seat, WarmFork, WarmVm};
use super::{OpError, chain, disk, identity, slot};

impl Actor {
    /// Brings a recorded fork that owns its bytes to its target. A fork that cannot be
    /// brought there is removed: a failed fork leaves nothing behind.
    pub(super) async fn become_fork(&mut self, birth: Birth) -> Result<(), OpError> {
        let Err(error) = self.come_to_life(birth).await else {
            return Ok(());
        };
        self.unmake_self().await;
        Err(error)
    }

    async fn come_to_life(&mut self, birth: Birth) -> Result<(), OpError> {
        let image = self.record.memory.image_id.clone();
        match (birth.target, birth.ram, image) {
            (Target::Running, Some(ram), Some(image)) => {
                let source = Source {
                    backend: birth.backend,
                    hot: birth.hot,
                };
                let owned = match birth.warm {
                    Some(warm) => self.take_over_or_wake(warm, &image, ram, source).await?,
                    None => {
                        self.wake(&image, ram, source, true).await?;
                        birth.owned
                    }
                };
                self.record_born_awake(image, owned).await
            }
            (Target::Running, _, _) => {
                self.save(|record| {
                    record.intent = Some(Intent::Boot);
                    Ok(())
                })
                .await?;
                self.boot_or_undo().await
            }
            (Target::Standby, _, image) => {
                self.make_links_durable(image.as_ref()).await?;
                self.save(move |record| {
                    note_copy(record, birth.owned);
                    record.intent = None;
                    record.standby = image;
                    Ok(())
                })
                .await
            }
            (Target::Stopped, _, _) => {
                let dir = self.dir.clone();
                blocking_op(move || disk::make_durable(&dir)).await?;
                self.save(|record| {
                    record.intent = None;
                    Ok(())
                })
                .await
            }
        }
    }

    async fn record_born_awake(&mut self, image: ImageId, owned: Owned) -> Result<(), OpError> {
        let now = (self.ctx.now)();
        self.save(move |record| {
            note_copy(record, owned);
            now_awake(record, image, now);
            Ok(())
        })
        .await
    }

    /// Becomes the machine that was prepared. One that was still on its way may fail: then this is
    /// a fork as any other.
    async fn take_over_or_wake(
        &mut self,
        warm: WarmFork,
        image: &ImageId,
        ram: RamUse,
        source: Source,
    ) -> Result<Owned, OpError> {
        let why = match warm.machine().await {
            Ok(machine) => return self.take_over(machine).await,
            Err(error) => chain(&error),
        };
        info!(instance = %self.id, %why, "its warm fork could not be made; it is woken by itself");
        let Some(parent) = &self.record.parent else {
            return Err(OpError::NotFound);
        };
        // The template is locked by this fork's record: its image is there.
        let template = self.ctx.layout.instance(parent);
        let (dir, own) = (self.dir.clone(), image.clone());
        let vmm = self.record.spec.hypervisor.clone();
        let owned =
            blocking_op(move || hand_over(&template, Some(&own), &vmm, &dir, Target::Running))
                .await?;
        self.wake(image, ram, source, true).await?;
        Ok(owned)
    }

    /// Becomes the machine that was prepared: all it lacks is an identity.
    async fn take_over(&mut self, warm: WarmVm) -> Result<Owned, OpError> {
        let WarmVm {
            vm,
            link,
            events,
            paged,
            mapped,
            seat,
            owned,
        } = warm;
        crate::metrics::warm_fork("taken");
        self.vm = Some(vm);
        self.paged = paged;
        self.mapped = mapped;
        if let Some(seat) = seat {
            let Seat { lease, policy } = *seat;
            self.have_slot(slot::recorded(&lease)).await?;
            let own = self.policy();
            if own != policy {
                self.refuse_claimed(&own.publish, &[]).await?;
                let set = self.ctx.network.get()?.set_policy(lease.slot, own).await;
                if let Err(error) = set {
                    return Err(self.whose(error).await);
                }
            }
            self.open_ports().await?;
        }
        self.look().await;
        self.show_busy();
        let image_record = self.image_record().await?;
        let identity = identity::identity(&self.record, &image_record, &self.ctx.zone, true);
        let has_hook = identity.post_fork.is_some();
        let resumed = link.resume(identity, RESUME_DEADLINE).await;
        self.explained(resumed.map_err(|error| not_resumed(error, has_hook)))?;
        self.mark_ready();
        self.take_guest(Up { link, events });
        Ok(owned)
    }

    /// A fork that sleeps has nothing but its links: they must be there after a power cut.
    async fn make_links_durable(&self, image: Option<&ImageId>) -> Result<(), OpError> {
        let Some(dir) = image.map(|image| self.dir.image(image)) else {
            return Ok(());
        };
        let own = self.dir.clone();
        blocking_op(move || {
            Image::open(&dir)?.make_durable()?;
            disk::make_directory_durable(&own)
        })
        .await
    }
}

/// Where the source's bytes could not be shared, the record says so.
fn note_copy(record: &mut InstanceRecord, owned: Owned) {
    if owned == Owned::Copied && record.memory.image_id.is_some() {
        record.memory.mode = MemoryMode::Copied;
    }
}
