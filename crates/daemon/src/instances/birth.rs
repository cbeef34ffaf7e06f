//! A fork coming to life, in its own actor.

use memory::Image;
use model::{ImageId, Intent, Target};

use super::OpError;
use super::actor::Actor;
use super::command::Birth;
use super::standby::blocking;

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
                self.make_links_durable(image.as_ref()).await?;
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

    /// A fork that sleeps has nothing but its links: they must be there after a power cut.
    async fn make_links_durable(&self, image: Option<&ImageId>) -> Result<(), OpError> {
        let Some(dir) = image.map(|image| self.dir.image(image)) else {
            return Ok(());
        };
        blocking(move || Image::open(&dir)?.make_durable()).await
    }
}
