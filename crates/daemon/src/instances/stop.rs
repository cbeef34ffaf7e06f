//! Powering off, and removing.

use model::{ExitInfo, Intent, Operation, VmmFact, admit};
use tracing::warn;

use super::actor::Actor;
use super::context::{POWER_OFF_DEADLINE, STOP_GRACE};
use super::standby::image_id;
use super::{OpError, chain, disk};
use crate::store::StoreError;

impl Actor {
    /// Powers a machine off: the program is asked, then told, then the VMM ends.
    pub(super) async fn stop(&mut self) -> Result<(), OpError> {
        self.save(|record| {
            record.intent = Some(Intent::Stop);
            Ok(())
        })
        .await?;
        self.shut_guest_down().await;
        self.end_vm().await?;
        self.record_down(None).await;
        Ok(())
    }

    /// Asks the guest to end its program and power off, and waits for it, for so long.
    async fn shut_guest_down(&mut self) {
        let (Some(vm), Some(link)) = (self.vm.clone(), self.link.clone()) else {
            return;
        };
        if self.vmm != VmmFact::Running {
            return;
        }
        let asked = link.shutdown(None, STOP_GRACE).await;
        if let Err(error) = asked {
            warn!(instance = %self.id, why = %chain(&error), "the guest did not take the stop");
            return;
        }
        self.show_busy();
        let over = async {
            tokio::select! {
                () = vm.powered_off() => {}
                _ = vm.exited() => {}
            }
        };
        if tokio::time::timeout(STOP_GRACE + POWER_OFF_DEADLINE, over)
            .await
            .is_err()
        {
            warn!(instance = %self.id, "the guest did not power off in time");
        }
        self.take_last_words().await;
        self.look().await;
        self.show_busy();
    }

    /// Keeps the exit code that the agent reported on its way down.
    async fn take_last_words(&mut self) {
        let Some(events) = &mut self.events else {
            return;
        };
        let next = tokio::time::timeout(std::time::Duration::from_millis(10), events.next()).await;
        if let Ok(guest::GuestEvent::ProgramExited { code, message, .. }) = next {
            self.record_exit(code, message).await;
        }
    }

    /// Ends the VMM, if there is one; nothing of it is left afterwards, its slot included. A VMM that cannot
    /// even be killed stays known: forgetting it would leave it running for ever.
    pub(super) async fn end_vm(&mut self) -> Result<(), OpError> {
        if let Some(vm) = self.vm.clone()
            && let Err(error) = vm.quit().await
        {
            warn!(instance = %self.id, why = %chain(&error), "the VMM did not quit; it is killed");
            vm.kill().await?;
        }
        self.forget_vm();
        self.release_slot().await;
        Ok(())
    }

    /// As [`Actor::end_vm`], where nobody waits for the outcome.
    pub(super) async fn end_vm_or_warn(&mut self) {
        if let Err(error) = self.end_vm().await {
            warn!(instance = %self.id, why = %chain(&error), "the VMM could not be ended");
        }
    }

    /// Records that the machine is down, and drops the memory that it ran on.
    pub(super) async fn record_down(&mut self, exit: Option<ExitInfo>) {
        let now = (self.ctx.now)();
        let saved = self
            .save(move |record| {
                record.intent = None;
                record.standby = None;
                record.base = None;
                record.stopped_at = Some(now);
                if exit.is_some() {
                    record.exit = exit;
                }
                Ok(())
            })
            .await;
        if let Err(error) = saved {
            warn!(instance = %self.id, why = %chain(&error), "cannot record that the machine is down");
            return;
        }
        self.drop_images(None);
    }

    /// Removes every memory image of the instance but `keep`. What else uses their bytes
    /// has links of its own.
    pub(super) fn drop_images(&self, keep: Option<&model::ImageId>) {
        let Ok(entries) = std::fs::read_dir(self.dir.memory()) else {
            return;
        };
        let kept_hint = keep.map(|id| pager::HotPages::path(&self.dir.memory(), &image_id(id)));
        for entry in entries.flatten() {
            let kept = keep.is_some_and(|id| entry.file_name() == id.as_str());
            if kept || kept_hint.as_ref() == Some(&entry.path()) {
                continue;
            }
            if let Err(error) = disk::remove_image(&entry.path()) {
                warn!(instance = %self.id, why = %chain(&error), "a memory image is left for the next sweep");
            }
        }
    }

    /// Removes the instance. The template lock is checked in the transaction that
    /// records the intent, and the database itself refuses to drop a parent.
    pub(super) async fn delete(&mut self, graceful: bool) -> Result<(), OpError> {
        self.look().await;
        let state = self.state();
        self.save_counted(move |record, forks| {
            admit(Operation::Delete, state, forks).map_err(StoreError::from)?;
            record.intent = Some(Intent::Delete);
            Ok(())
        })
        .await?;
        if graceful {
            self.shut_guest_down().await;
        }
        self.remove_for_good().await
    }

    /// Removes an instance that could not be made. That is recorded first: a start of the
    /// daemon must not finish what was reported as failed.
    pub(super) async fn unmake_self(&mut self) {
        let marked = self
            .save(|record| {
                record.intent = Some(Intent::Delete);
                Ok(())
            })
            .await;
        if let Err(error) = marked {
            warn!(instance = %self.id, why = %chain(&error), "cannot record that it is to be removed");
        }
        if let Err(error) = self.remove_for_good().await {
            warn!(instance = %self.id, why = %chain(&error), "a failed instance is left for the next start");
        }
    }

    /// The deeds of a deletion; each may run again after a crash.
    pub(super) async fn remove_for_good(&mut self) -> Result<(), OpError> {
        self.look().await;
        if self.unread {
            return Err(OpError::HostNotReady(
                "it cannot be told whether its VMM still runs; see the daemon's log".to_owned(),
            ));
        }
        self.end_vm().await?;
        self.drop_warm().await;
        self.hold = None;
        let root = self.dir.root().to_owned();
        tokio::task::spawn_blocking(move || disk::remove_tree(&root))
            .await
            .map_err(|_| OpError::Timeout("removing files"))??;
        let id = self.id.clone();
        self.ctx.store.run(move |store| store.remove(&id)).await?;
        self.end();
        Ok(())
    }
}
