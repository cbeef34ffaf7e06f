//! A fork coming to life, in its own actor.

use model::{Intent, Target};

use super::OpError;
use super::actor::Actor;
use super::command::Birth;

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
                self.wake(&image, ram, true).await?;
                self.record_awake(image).await
            }
            (Target::Running, _, _) => {
                self.save(|record, _| {
                    record.intent = Some(Intent::Boot);
                    Ok(())
                })
                .await?;
                self.boot_or_undo().await
            }
            (Target::Standby, _, image) => {
                self.save(move |record, _| {
                    record.intent = None;
                    record.standby = image;
                    Ok(())
                })
                .await
            }
            (Target::Stopped, _, _) => {
                self.save(|record, _| {
                    record.intent = None;
                    Ok(())
                })
                .await
            }
        }
    }
}
