//! Going to sleep and waking up.

use guest::LinkError;
use hypervisor::{RamUse, Vm};
use memory::{Draft, How, ManifestFacts, NewDisk};
use model::{
    Backend, Compression, ImageId, InstanceRecord, Intent, MemoryMode, UnixMillis, VmmFact,
};
use std::sync::Arc;
use tracing::warn;

use super::actor::{Actor, Up};
use super::blocking::blocking;
use super::context::{QUIESCE_DEADLINE, THAW_DEADLINE};
use super::reaching::reach;
use super::restoring::{Restored, Restoring, Source, resume_guest};
use super::{OpError, chain, disk, identity};
use crate::entropy;

/// How often a machine that has to run on is told so.
const RESUME_ATTEMPTS: usize = 3;

impl Actor {
    /// Running → Paused → Standby. Until the image is complete and recorded the VMM is
    /// kept, so that a failure at any point leaves the machine running as before.
    pub(super) async fn standby(
        &mut self,
        compression: Option<Compression>,
    ) -> Result<(), OpError> {
        let policy = self.record.spec.snapshots.compression;
        let compression = Compression::choose(compression, policy, self.ctx.compression);
        let image = entropy::image_id();
        let intent = Intent::Standby {
            image: image.clone(),
        };
        self.save(move |record| {
            record.intent = Some(intent);
            Ok(())
        })
        .await?;
        match self.write_image(&image, compression).await {
            Ok(()) => self.finish_standby(&image).await,
            Err(error) => {
                self.resume_after_failure(&image).await;
                Err(error)
            }
        }
    }

    async fn write_image(
        &mut self,
        image: &ImageId,
        compression: Compression,
    ) -> Result<(), OpError> {
        self.quiesce().await?;
        let vm = self.running_vm()?;
        vm.pause().await?;
        self.vmm = VmmFact::Paused;
        self.show_busy();
        let (draft, facts) = self.capture(&vm, image, (How::Link, compression)).await?;
        blocking(move || draft.finish(facts)).await?;
        Ok(())
    }

    /// Writes the paused machine into a draft: device state, RAM and disk chain. RAM is compressed while it is
    /// written: a finished image is never written again.
    pub(super) async fn capture(
        &mut self,
        vm: &Arc<dyn Vm>,
        image: &ImageId,
        (top, compression): (How, Compression),
    ) -> Result<(Draft, ManifestFacts), OpError> {
        let snapshots = vm.snapshots().ok_or_else(|| {
            OpError::HostNotReady("this VMM cannot write memory images".to_owned())
        })?;
        let dir = self.dir.image(image);
        let id = image_id(image);
        let verified = self.ctx.verified.clone();
        std::fs::create_dir_all(self.dir.memory()).map_err(OpError::disk(
            "cannot create the directory of memory images",
        ))?;
        let mut draft = blocking(move || Draft::create(&dir, id, &verified)).await?;
        if let Compression::Zstd { level } = compression {
            draft.compress(level.into());
        }
        let machine = match snapshots.capture(&mut draft).await {
            Ok(captured) => captured.machine,
            Err(error) => {
                draft.abandon();
                return Err(error.into());
            }
        };
        let layers = disk::chain(&self.dir)?;
        let size = self.record.spec.overlay_size.bytes();
        let draft = blocking(move || add_disks(draft, &layers, size, top)).await?;
        let facts = ManifestFacts {
            machine,
            root_digest: self.record.spec.image_digest.clone(),
        };
        Ok((draft, facts))
    }

    /// The image is complete: from here on the machine is asleep, whatever happens. Only
    /// if not even that can be recorded it goes on running, without the image. The intent
    /// stays until the VMM has ended, so that a crash in between is finished as well.
    pub(super) async fn finish_standby(&mut self, image: &ImageId) -> Result<(), OpError> {
        let standby = image.clone();
        let now = (self.ctx.now)();
        let recorded = self
            .save(move |record| {
                record.standby = Some(standby);
                record.base = None;
                record.stopped_at = Some(now);
                Ok(())
            })
            .await;
        if let Err(error) = recorded {
            self.resume_after_failure(image).await;
            return Err(error);
        }
        self.end_vm().await?;
        self.drop_images(Some(image));
        self.drop_disk();
        self.clear_intent().await;
        Ok(())
    }

    /// Removes the live disk chain of a machine that sleeps: its image has links of its own.
    fn drop_disk(&self) {
        if let Err(error) = disk::remove_tree(&self.dir.disk()) {
            warn!(instance = %self.id, why = %chain(&error), "disk links are left until it wakes");
        }
    }

    /// Removes what was written of `image` and lets the machine run on.
    pub(super) async fn resume_after_failure(&mut self, image: &ImageId) {
        if let Err(error) = disk::remove_image(&self.dir.image(image)) {
            warn!(instance = %self.id, why = %chain(&error), "a draft is left for the next sweep");
        }
        if let Err(error) = disk::thaw(&self.dir) {
            warn!(instance = %self.id, why = %chain(&error), "the disk stays read-only");
        }
        self.wake_paused().await;
        let cleared = self
            .save(|record| {
                record.intent = None;
                record.standby = None;
                Ok(())
            })
            .await;
        if let Err(error) = cleared {
            warn!(instance = %self.id, why = %chain(&error), "cannot record the end of a standby");
        }
    }

    /// Lets a machine that stands still run on, its programs included. It is tried more
    /// than once: nothing else would ever wake it.
    pub(super) async fn wake_paused(&mut self) {
        for _ in 0..RESUME_ATTEMPTS {
            self.look().await;
            let (Some(vm), VmmFact::Paused) = (self.vm.clone(), &self.vmm) else {
                break;
            };
            if let Err(error) = vm.resume().await {
                warn!(instance = %self.id, why = %chain(&error), "the machine could not be resumed");
            }
        }
        self.look().await;
        self.thaw().await;
    }

    /// Prepares the guest for a memory image: file systems are written out, so that the
    /// disk alone is good for a fork that boots from it, and programs are frozen, so that
    /// none of them runs in a fork before the fork has an identity of its own.
    pub(super) async fn quiesce(&mut self) -> Result<(), OpError> {
        let link = self.linked().await?;
        link.quiesce(QUIESCE_DEADLINE).await?;
        Ok(())
    }

    /// Lets the programs of the same machine go on. Saving a machine may have ended the line to its agent: then
    /// they are not left frozen until somebody looks after the line.
    pub(super) async fn thaw(&mut self) {
        let Some(link) = &self.link else { return };
        let mut thawed = link.thaw(THAW_DEADLINE).await.map_err(OpError::from);
        if let Err(OpError::Guest(LinkError::Closed)) = thawed {
            thawed = self.thaw_anew().await;
        }
        if let Err(error) = thawed {
            warn!(instance = %self.id, why = %chain(&error), "the guest's programs could not be thawed");
        }
    }

    /// Thaws over a new line. It takes the place of the old one only if that has worked: the end of the old one
    /// is still to be heard of otherwise, and makes the actor look for the guest until it answers.
    async fn thaw_anew(&mut self) -> Result<(), OpError> {
        let vm = self.running_vm()?;
        let (link, events) = reach(vm.as_ref(), THAW_DEADLINE).await?;
        link.thaw(THAW_DEADLINE).await?;
        self.take_guest(Up { link, events });
        Ok(())
    }

    pub(super) fn running_vm(&self) -> Result<Arc<dyn Vm>, OpError> {
        self.vm.clone().ok_or(OpError::NotFound)
    }

    /// Standby → Paused → Running.
    pub(super) async fn restore(&mut self) -> Result<(), OpError> {
        self.save(|record| {
            record.intent = Some(Intent::Restore);
            Ok(())
        })
        .await?;
        let Some(image) = self.record.standby.clone() else {
            return Err(OpError::NotFound);
        };
        let ram = self.ram_use(&image);
        // It is alone on its image: what a pager fills would be written out again by its next standby.
        let awake = match self.wake(&image, ram, Source::FILE, false).await {
            Ok(()) => self.record_awake(image).await,
            Err(error) => Err(error),
        };
        if awake.is_err() {
            self.back_to_standby().await;
        }
        awake
    }

    /// A fork that was promised a full copy gets it when it first wakes; later images are
    /// its own and shared with nobody. One with a parent was promised to share: that its
    /// files had to be copied is no reason to hold its RAM twice.
    fn ram_use(&self, image: &ImageId) -> RamUse {
        let memory = &self.record.memory;
        let promised = memory.mode == MemoryMode::Copied
            && memory.image_id.as_ref() == Some(image)
            && self.record.parent.is_none();
        if promised {
            RamUse::Copied
        } else {
            RamUse::Own
        }
    }

    /// Ends what runs of a half-woken machine. Its image is untouched.
    pub(super) async fn back_to_standby(&mut self) {
        self.end_vm_or_warn().await;
        self.drop_disk();
        self.clear_intent().await;
    }

    /// The machine runs on `image` now: it is no longer what it would wake from.
    pub(super) async fn record_awake(&mut self, image: ImageId) -> Result<(), OpError> {
        let now = (self.ctx.now)();
        self.save(move |record| {
            now_awake(record, image, now);
            if record.memory.backend.is_some() {
                record.memory.backend = Some(Backend::File);
            }
            Ok(())
        })
        .await
    }

    /// Brings the machine of an own image up to the point where its agent has taken the
    /// identity. With `new_machine` that includes the hook of a fork.
    pub(super) async fn wake(
        &mut self,
        image: &ImageId,
        ram: RamUse,
        source: Source,
        new_machine: bool,
    ) -> Result<(), OpError> {
        let ctx = Arc::clone(&self.ctx);
        let permit = ctx.starts.acquire().await;
        let image_record = self.image_record().await?;
        let restoring = Restoring {
            id: self.id.clone(),
            dir: self.dir.clone(),
            image: image.clone(),
            root: ctx.root_disk(&self.record.spec)?,
            ram,
            source,
            driver: Arc::clone(self.driver()?),
            nic: self.take_slot().await?,
        };
        let Restored { vm, paged, mapped } = restoring.restore(&ctx.pagers).await?;
        // What the guest does from here on, its hook above all, may take as long as it likes.
        drop(permit);
        self.vm = Some(Arc::clone(&vm));
        self.paged = paged;
        self.mapped = mapped;
        self.vmm = VmmFact::Paused;
        self.show_busy();
        let identity = identity::identity(&self.record, &image_record, &ctx.zone, new_machine);
        let up = self.explained(resume_guest(&vm, identity).await)?;
        self.mark_ready();
        self.look().await;
        self.take_guest(up);
        Ok(())
    }
}

impl Actor {
    /// The guest's agent has answered: a recording of what it touches goes on to its next part.
    pub(super) fn mark_ready(&self) {
        if let Some(paged) = &self.paged {
            paged.ready();
        }
        if let Some(mapped) = &self.mapped {
            mapped.ready();
        }
    }

    /// A guest that fell silent because its memory could not be served did not fail by itself.
    pub(super) fn explained<T>(&self, result: Result<T, OpError>) -> Result<T, OpError> {
        let failure = self.paged.as_ref().and_then(|paged| paged.failure());
        match (result, failure) {
            (Err(_), Some(reason)) => Err(OpError::Unserved(reason)),
            (result, _) => result,
        }
    }
}

/// What the record of a machine that has woken from `image` says.
pub(super) fn now_awake(record: &mut InstanceRecord, image: ImageId, now: UnixMillis) {
    record.intent = None;
    record.standby = None;
    record.base = Some(image);
    record.started_at = Some(now);
    record.stopped_at = None;
    record.exit = None;
}

fn add_disks(
    mut draft: Draft,
    layers: &[hypervisor::DiskFile],
    size: u64,
    top: How,
) -> Result<Draft, memory::ImageError> {
    let last = layers.len().saturating_sub(1);
    for (index, layer) in layers.iter().enumerate() {
        let disk = NewDisk {
            source: layer.path.clone(),
            format: layer.format,
            virtual_bytes: size,
            how: if index == last { top } else { How::Link },
        };
        if let Err(error) = draft.add_disk(&disk) {
            draft.abandon();
            return Err(error);
        }
    }
    Ok(draft)
}

/// The same id in the words of the memory crate.
pub(super) fn image_id(id: &ImageId) -> memory::ImageId {
    // Both crates parse the same form: 24 lower-case letters and digits, a letter first.
    id.as_str().parse().expect("image ids have one form")
}
