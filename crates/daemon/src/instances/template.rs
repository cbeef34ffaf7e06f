//! Promotion and demotion: one transaction each, and the memory that is kept loaded
//! for the forks to come.

use model::{Operation, State, admit};

use super::OpError;
use super::actor::Actor;
use super::standby::check_vmm;
use crate::store::StoreError;

impl Actor {
    /// Standby → Template. The image is verified and loaded first: a template that
    /// could not be forked would be no template.
    pub(super) async fn promote(&mut self) -> Result<(), OpError> {
        self.allowed(Operation::Promote).await?;
        let state = self.state();
        self.ensure_hold().await?;
        let saved = self
            .save_counted(move |record, forks| {
                admit(Operation::Promote, state, forks).map_err(StoreError::from)?;
                record.template = true;
                Ok(())
            })
            .await;
        if saved.is_err() {
            self.hold = None;
        }
        saved
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
