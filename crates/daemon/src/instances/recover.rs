//! After a restart: each actor compares its record with what it finds, and finishes or
//! undoes what was under way. The decision is `model::repair`; here are the deeds.

use std::sync::Arc;

use memory::Image;
use model::{Backend, ExitInfo, GuestFact, ImageId, Intent, Repair, Survivor, VmmFact, repair};
use tracing::{info, warn};

use super::actor::Actor;
use super::pagers::Found;
use super::restoring::resume_guest;
use super::{OpError, chain, disk, identity};

/// How often a VMM that was found is asked what it does; each time has a deadline.
const LOOKS: usize = 10;

impl Actor {
    /// Brings the actor in step with the world. Afterwards the instance is as if the
    /// daemon had never been away, or as if the operation had never been asked for.
    pub(super) async fn recover(&mut self) {
        let vmm = &self.record.spec.hypervisor;
        match self.ctx.drivers.adopt(vmm, &self.dir.run()).await {
            Ok(vm) => {
                self.vm = vm;
                self.unread = false;
            }
            // Neither keeping nor ending it is safe while nobody knows whether it runs.
            Err(error) => {
                let why = chain(&error);
                warn!(instance = %self.id, %why, "cannot look for the VMM");
                self.unread = true;
                self.vmm = VmmFact::Unreadable(why);
                self.show();
                return;
            }
        }
        self.find_pager().await;
        if self.unread {
            self.show();
            return;
        }
        self.look_again().await;
        let survivor = match self.vmm {
            VmmFact::Absent => Survivor::None,
            VmmFact::Running => Survivor::Running,
            VmmFact::Paused | VmmFact::Created => Survivor::Halted,
            VmmFact::Shutdown => Survivor::PoweredOff,
            VmmFact::Unreadable(_) => Survivor::Silent,
        };
        let intent = self.record.intent.clone();
        let complete = matches!(&intent, Some(Intent::Standby { image })
            if Image::open(&self.dir.image(image)).is_ok());
        let repair = repair(intent.as_ref(), survivor, complete);
        if survivor != Survivor::None || intent.is_some() {
            info!(instance = %self.id, ?survivor, ?intent, ?repair, "recovering");
            self.journal.note(&format!("daemon restarted: {repair:?}"));
        }
        if let Err(error) = self.mend(repair, intent).await {
            warn!(instance = %self.id, why = %chain(&error), ?repair, "recovery failed");
        }
        if self.vm.is_none() {
            self.release_slot().await;
        }
        self.drop_unused_images();
        self.show();
    }

    /// A machine whose memory nobody serves must not go on: its threads would wait for ever.
    async fn find_pager(&mut self) {
        let (Some(Backend::Uffd), Some(image)) =
            (self.record.memory.backend, self.record.base.clone())
        else {
            return;
        };
        let pagers = Arc::clone(&self.ctx.pagers);
        let lost = match &self.vm {
            None => pagers.failure(&image, &self.id),
            Some(vm) => match pagers.adopt(&image, &self.id, vm.process().pid).await {
                Found::Served(paged) => {
                    self.paged = Some(paged);
                    None
                }
                Found::Complete => None,
                Found::Lost(reason) => {
                    if let Err(error) = vm.kill().await {
                        // It keeps its disk and its slot, and whatever is asked of it next tries again.
                        warn!(instance = %self.id, why = %chain(&error), "a VMM without a pager cannot be ended");
                        self.unread = true;
                    }
                    Some(reason)
                }
            },
        };
        let Some(reason) = lost else { return };
        let words = OpError::Unserved(reason).to_string();
        warn!(instance = %self.id, why = %words, "it was killed");
        self.journal.note(&words);
        let exit = ExitInfo {
            code: None,
            message: Some(words),
        };
        let told = self.save(move |record| {
            record.exit.get_or_insert(exit);
            Ok(())
        });
        if let Err(error) = told.await {
            warn!(instance = %self.id, why = %chain(&error), "cannot record why it was killed");
        }
        if self.unread {
            self.vmm = VmmFact::Unreadable("its pager is gone, and it cannot be ended".to_owned());
            return;
        }
        // What of it is left is looked for as that of any machine that has ended.
        self.forget_vm();
    }

    /// A VMM of a busy host may take its time to say what it does, above all when the daemon
    /// asks all of them at once; what is taken for silent then stays so until the next request.
    async fn look_again(&mut self) {
        for _ in 0..LOOKS {
            self.look().await;
            if !matches!(self.vmm, VmmFact::Unreadable(_)) {
                return;
            }
        }
    }

    async fn mend(&mut self, repair: Repair, intent: Option<Intent>) -> Result<(), OpError> {
        match repair {
            Repair::Adopt => self.adopt().await,
            Repair::FinishBringUp if intent == Some(Intent::Restore) => self.finish_restore().await,
            Repair::FinishBringUp => {
                let recorded = self.record.started_at.is_some() && self.record.stopped_at.is_none();
                if !recorded {
                    self.record_booted().await?;
                }
                self.reconnect().await;
                Ok(())
            }
            Repair::BootAgain => {
                self.end_vm().await?;
                // A first boot may have died before its disk was made; a later one has
                // a disk, and if that is gone the boot must fail rather than start empty.
                if self.record.started_at.is_none() && disk::chain(&self.dir).is_err() {
                    self.make_directories()?;
                    disk::fresh(
                        &self.ctx.layout,
                        &self.dir,
                        self.record.spec.overlay_size.bytes(),
                        self.driver()?.powers().disk,
                    )?;
                    disk::make_durable(&self.dir)?;
                }
                self.boot_or_undo().await
            }
            Repair::FinishStandby => match intent {
                Some(Intent::Standby { image }) => self.finish_standby(&image).await,
                _ => Ok(()),
            },
            Repair::ResumeGuest => {
                self.wake_paused().await;
                self.clear_intent().await;
                self.reconnect_to_started().await;
                Ok(())
            }
            Repair::BackToStandby => {
                self.back_to_standby().await;
                Ok(())
            }
            Repair::FinishStop => {
                self.end_vm().await?;
                self.record_down(None).await;
                Ok(())
            }
            Repair::Remove => self.remove_for_good().await,
        }
    }

    /// Keeps a VM that runs; notes the end of one that ended while nobody looked.
    async fn adopt(&mut self) -> Result<(), OpError> {
        if self.vm.is_some() {
            if self.vmm == VmmFact::Running {
                self.reconnect_to_started().await;
            }
            return self.record_that_it_is_up().await;
        }
        let was_up = self.record.standby.is_none()
            && self.record.started_at.is_some()
            && self.record.stopped_at.is_none();
        if was_up {
            let unexplained = self.record.exit.is_none().then(|| ExitInfo {
                code: None,
                message: Some("the VMM ended while the daemon was away".to_owned()),
            });
            self.record_down(unexplained).await;
        }
        Ok(())
    }

    /// Earlier versions kept the time of the last stop while the machine was up again.
    async fn record_that_it_is_up(&mut self) -> Result<(), OpError> {
        if self.record.stopped_at.is_none() {
            return Ok(());
        }
        self.save(|record| {
            record.stopped_at = None;
            Ok(())
        })
        .await
    }

    /// A running VM whose record has no boot under way: its program started, and its
    /// agent answered, before the daemon went. Only the line has to be made anew.
    async fn reconnect_to_started(&mut self) {
        self.guest = GuestFact::Ready;
        self.reconnect().await;
    }

    /// The VM woke, but nobody knows whether its guest took the identity: give it again.
    async fn finish_restore(&mut self) -> Result<(), OpError> {
        let (Some(vm), Some(image)) = (self.vm.clone(), self.record.standby.clone()) else {
            self.back_to_standby().await;
            return Ok(());
        };
        let image_record = self.image_record().await?;
        let identity = identity::identity(&self.record, &image_record, &self.ctx.zone, false);
        match resume_guest(&vm, identity).await {
            Ok(up) => {
                self.take_guest(up);
                self.record_awake(image).await
            }
            Err(error) => {
                self.back_to_standby().await;
                Err(error)
            }
        }
    }

    /// Drafts, captures and images that nothing refers to any more.
    fn drop_unused_images(&self) {
        let keep: Option<&ImageId> = self.record.standby.as_ref().or(self.record.base.as_ref());
        self.drop_images(keep);
    }

    pub(super) fn make_directories(&self) -> Result<(), OpError> {
        for part in [self.dir.run(), self.dir.logs(), self.dir.memory()] {
            std::fs::create_dir_all(part)
                .map_err(OpError::disk("cannot create the instance's directory"))?;
        }
        Ok(())
    }
}
