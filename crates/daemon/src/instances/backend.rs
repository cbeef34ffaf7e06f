//! What the RAM of forks is to come from, decided in the source's turn by `model::choose_backend`.

use memory::Image;
use model::{
    Backend, BackendWish, ForkMode, ForkPlan, ImageId, ImageUse, Paging, RamForm, Wishes,
    choose_backend,
};

use super::OpError;
use super::actor::Actor;
use super::blocking::blocking;

impl Actor {
    /// What the RAM of the planned forks comes from, if the request wants `wish`.
    pub(super) async fn fork_backend(
        &self,
        wish: Option<BackendWish>,
        plan: ForkPlan,
    ) -> Result<Backend, OpError> {
        let usage = match plan.mode {
            ForkMode::Share { .. } => ImageUse::Shared,
            ForkMode::Capture => ImageUse::Alone,
            ForkMode::Copy => ImageUse::Copy,
            // There is no memory to be had from anywhere.
            ForkMode::Disk => return Ok(Backend::File),
        };
        self.choose(wish, usage).await
    }

    /// What forks get that want nothing, sharing the image.
    pub(super) async fn usual_backend(&self) -> Result<Backend, OpError> {
        self.choose(None, ImageUse::Shared).await
    }

    /// Refuses a wish that no fork could ever have.
    pub(super) fn check_wish(&self, wish: Option<BackendWish>) -> Result<(), OpError> {
        let wishes = Wishes {
            template: wish,
            ..Wishes::default()
        };
        choose_backend(wishes, PLAIN, ImageUse::Shared, self.paging()?)?;
        Ok(())
    }

    async fn choose(&self, wish: Option<BackendWish>, usage: ImageUse) -> Result<Backend, OpError> {
        let paging = self.paging()?;
        let wishes = Wishes {
            fork: wish,
            template: self.record.spec.memory.backend,
            server: self.ctx.pagers.policy().backend,
        };
        let form = match &self.record.standby {
            // Else it makes no difference how the image looks.
            Some(image) if paging == Paging::Can && usage == ImageUse::Shared => {
                self.ram_form(image).await?
            }
            _ => PLAIN,
        };
        Ok(choose_backend(wishes, form, usage, paging)?)
    }

    /// Whether the machine's VMM and this host have it get memory from a pager.
    fn paging(&self) -> Result<Paging<'_>, OpError> {
        if !self.driver()?.powers().pager {
            return Ok(Paging::NotBy(&self.record.spec.hypervisor));
        }
        Ok(match self.ctx.pagers.unusable() {
            None => Paging::Can,
            Some(why) => Paging::NotHere(why),
        })
    }

    async fn ram_form(&self, image: &ImageId) -> Result<RamForm, OpError> {
        let dir = self.dir.image(image);
        blocking(move || {
            let stored = Image::open(&dir)?.stored_ram()?;
            Ok(RamForm {
                layers: stored.layers,
                compressed: stored.compressed_layers > 0,
            })
        })
        .await
    }
}

const PLAIN: RamForm = RamForm {
    layers: 1,
    compressed: false,
};
