//! Promotion and demotion: one transaction each, and the memory that is kept loaded
//! for the forks to come.

use memory::Image;
use model::{Backend, Operation, Prefetch, State, admit};

use super::OpError;
use super::actor::Actor;
use super::blocking::blocking;
use super::command::ForkMemory;
use super::restoring::check_vmm;
use crate::store::StoreError;

impl Actor {
    /// Standby → Template. The image is verified and loaded first: a template that
    /// could not be forked would be no template.
    pub(super) async fn promote(&mut self, forks: ForkMemory) -> Result<(), OpError> {
        self.allowed(Operation::Promote).await?;
        self.check_wish(forks.backend)?;
        let state = self.state();
        let before = self.record.spec.memory;
        self.record.spec.memory = forks.applied_to(before);
        let ready = self.make_ready().await;
        self.record.spec.memory = before;
        ready?;
        let saved = self
            .save_counted(move |record, count| {
                admit(Operation::Promote, state, count).map_err(StoreError::from)?;
                record.template = true;
                record.spec.memory = forks.applied_to(record.spec.memory);
                Ok(())
            })
            .await;
        match &saved {
            Ok(()) => self.heed_prefetch(forks),
            Err(_) => self.hold = None,
        }
        saved
    }

    /// Has what forks that want nothing will need: the image loaded, or at least intact.
    async fn make_ready(&mut self) -> Result<(), OpError> {
        if self.usual_backend().await? == Backend::File {
            return self.ensure_hold().await;
        }
        let Some(image) = self.record.standby.clone() else {
            return Ok(());
        };
        let (dir, verified) = (self.dir.image(&image), self.ctx.verified.clone());
        // RAM is checked by the pager, piece by piece.
        blocking(move || Image::open(&dir)?.verify_state_and_disks(&verified)).await
    }

    /// A new recording begins with nothing.
    pub(super) fn heed_prefetch(&self, forks: ForkMemory) {
        if forks.prefetch == Some(Prefetch::Record) {
            self.forget_hot_pages();
        }
    }

    fn forget_hot_pages(&self) {
        if let Some(image) = &self.record.standby {
            self.ctx.pagers.forget_hot_pages(&self.dir, image);
        }
    }

    /// Template → Standby, unless forks live. Forks are counted in the same transaction,
    /// so one that is being made either is counted or fails.
    pub(super) async fn demote(&mut self) -> Result<(), OpError> {
        let state = self.state();
        self.save_counted(move |record, forks| {
            admit(Operation::Demote, state, forks).map_err(StoreError::from)?;
            record.template = false;
            record.promoting = false;
            Ok(())
        })
        .await?;
        self.drop_warm().await;
        self.hold = None;
        self.forget_hot_pages();
        Ok(())
    }

    /// The fork request that made this a template is over. A fork that fails leaves nothing
    /// behind, the promotion of its source included; but if somebody else has forked the
    /// template meanwhile, it stays one.
    pub(super) async fn settle_promotion(&mut self, lived: bool) -> Result<(), OpError> {
        if !self.record.promoting {
            return Ok(());
        }
        if lived {
            return self
                .save(|record| {
                    record.promoting = false;
                    Ok(())
                })
                .await;
        }
        self.save_counted(|record, forks| {
            record.promoting = false;
            record.template = forks > 0;
            Ok(())
        })
        .await?;
        if !self.record.template {
            self.drop_warm().await;
            self.hold = None;
            self.forget_hot_pages();
        }
        Ok(())
    }

    /// Loads the image for sharing, if it is not loaded.
    pub(super) async fn ensure_hold(&mut self) -> Result<(), OpError> {
        if self.hold.is_some() {
            return Ok(());
        }
        let templates = self.driver()?.templates().ok_or_else(|| {
            OpError::HostNotReady("this VMM cannot share memory between machines".to_owned())
        })?;
        if let (State::Standby | State::Template, Some(image)) =
            (self.state(), self.record.standby.clone())
        {
            let dir = self.dir.image(&image);
            check_vmm(&memory::Image::open(&dir)?, &self.record.spec.hypervisor)?;
            self.hold = Some(templates.hold(&dir).await?);
        }
        Ok(())
    }
}
