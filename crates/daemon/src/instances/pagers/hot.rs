//! Hot pages of a template: kept beside its memory image, put together from what its first forks touch.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use model::{HotPlan, ImageId, Prefetch, plan_hot_pages};
use pager::{ENOUGH_RECORDINGS, HotPages};
use tracing::warn;

use super::super::layout::InstanceDir;
use super::super::standby::image_id;

/// The hot pages of one image, in the directory of the template that has it.
#[derive(Debug, Clone)]
pub struct HotStore {
    dir: PathBuf,
    image: memory::ImageId,
    /// One recording is put in at a time.
    writing: Arc<Mutex<()>>,
}

/// What a fork is to have of a template's hot pages.
#[derive(Debug, Clone)]
pub(in crate::instances) struct HotOrder {
    pub(in crate::instances) store: HotStore,
    pub(in crate::instances) prefetch: Prefetch,
    /// Number of the fork since the image is in use.
    pub(in crate::instances) nth: u64,
    /// It is made before somebody asks for it.
    pub(in crate::instances) prepared: bool,
}

impl HotOrder {
    /// What is done for this fork, with the pages to be filled ahead.
    pub(super) fn plan(&self) -> (HotPlan, Option<HotPages>) {
        let known = self.store.load();
        let recordings = known.as_ref().map_or(0, |hot| hot.recordings);
        let plan = plan_hot_pages(self.prefetch, recordings, ENOUGH_RECORDINGS, self.nth);
        (plan, known.filter(|_| plan.replay))
    }
}

impl HotStore {
    pub(super) fn new(template: &InstanceDir, image: &ImageId, writing: Arc<Mutex<()>>) -> Self {
        Self {
            dir: template.memory(),
            image: image_id(image),
            writing,
        }
    }

    /// What is known; nothing if there is no file that can be used.
    #[must_use]
    pub fn load(&self) -> Option<HotPages> {
        match HotPages::load(&self.dir, &self.image) {
            Ok(known) => known,
            Err(error) => {
                warn!(image = %self.image, %error, "hot pages cannot be read");
                None
            }
        }
    }

    /// Puts in what one more fork has touched, unless enough is known.
    pub(in crate::instances) fn add(&self, recorded: &HotPages) {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut hot = self.load().unwrap_or_default();
        if hot.recordings >= ENOUGH_RECORDINGS {
            return;
        }
        hot.merge(recorded);
        // A template that was removed meanwhile has no directory, and no use for it.
        if let Err(error) = hot.save(&self.dir, &self.image)
            && self.dir.exists()
        {
            warn!(image = %self.image, %error, "hot pages cannot be kept");
        }
    }

    /// Forgets everything.
    pub(in crate::instances) fn remove(&self) {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = HotPages::remove(&self.dir, &self.image) {
            warn!(image = %self.image, %error, "hot pages are left; they are only a hint");
        }
    }
}
