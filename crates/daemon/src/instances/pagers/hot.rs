//! Hot pages of a template: kept beside its memory image, put together from what its first forks touch.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use model::{ImageId, Prefetch, Recording, plan_hot_pages};
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
    /// Hot pages were removed since it was planned.
    pub(super) forgotten: Arc<AtomicBool>,
}

/// What is done for a fork.
#[derive(Debug, Default)]
pub(super) struct HotWork {
    /// Where what it touches goes, if it is recorded.
    pub(super) record: Option<HotSink>,
    /// What others have touched.
    pub(super) replay: Option<HotPages>,
}

/// Where one recording goes.
#[derive(Debug)]
pub(super) struct HotSink {
    store: HotStore,
    recording: Recording,
    forgotten: Arc<AtomicBool>,
}

impl HotOrder {
    /// What is done for this fork.
    pub(super) fn plan(self) -> HotWork {
        let known = self.store.load();
        let recordings = known.as_ref().map_or(0, |hot| hot.recordings);
        let plan = plan_hot_pages(self.prefetch, recordings, ENOUGH_RECORDINGS, self.nth);
        HotWork {
            record: plan.record.map(|recording| HotSink {
                store: self.store,
                recording,
                forgotten: self.forgotten,
            }),
            replay: known.filter(|_| plan.replay),
        }
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

    /// Forgets everything.
    pub(super) fn remove(&self) {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = HotPages::remove(&self.dir, &self.image) {
            warn!(image = %self.image, %error, "hot pages are left; they are only a hint");
        }
    }
}

impl HotSink {
    /// Puts in what one more fork has touched, unless enough is known or all was to be forgotten meanwhile.
    pub(super) fn put(&self, recorded: &HotPages) {
        let store = &self.store;
        let _alone = store.writing.lock().unwrap_or_else(PoisonError::into_inner);
        // Said before what is there is removed, which takes the lock.
        if self.forgotten.load(Ordering::SeqCst) {
            return;
        }
        let mut hot = match self.recording {
            Recording::Adds => store.load().unwrap_or_default(),
            Recording::Renews => HotPages::default(),
        };
        if hot.recordings >= ENOUGH_RECORDINGS {
            return;
        }
        hot.merge(recorded);
        // A template that was removed meanwhile has no directory, and no use for it.
        if let Err(error) = hot.save(&store.dir, &store.image)
            && store.dir.exists()
        {
            warn!(image = %store.image, %error, "hot pages cannot be kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy;
    use crate::instances::layout::Layout;

    fn recorded(page: u64) -> HotPages {
        HotPages {
            recordings: 1,
            ready: vec![(page, 1)],
            exec: Vec::new(),
        }
    }

    struct Template {
        _dir: tempfile::TempDir,
        store: HotStore,
        forgotten: Arc<AtomicBool>,
    }

    impl Template {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let place = Layout::new(dir.path()).instance(&entropy::instance_id());
            std::fs::create_dir_all(place.memory()).unwrap();
            let image = entropy::image_id();
            Self {
                _dir: dir,
                store: HotStore::new(&place, &image, Arc::default()),
                forgotten: Arc::default(),
            }
        }

        fn nth(&self, nth: u64) -> HotWork {
            let order = HotOrder {
                store: self.store.clone(),
                prefetch: Prefetch::On,
                nth,
                prepared: false,
                forgotten: Arc::clone(&self.forgotten),
            };
            order.plan()
        }

        fn known(&self) -> Vec<(u64, u64)> {
            self.store.load().map_or_else(Vec::new, |hot| hot.ready)
        }
    }

    #[test]
    fn three_recordings_are_put_together_and_a_later_one_takes_their_place() {
        let template = Template::new();
        // All of them began before the first one ended.
        let sinks: Vec<_> = (0..4)
            .map(|nth| template.nth(nth).record.unwrap())
            .collect();
        for (page, sink) in (10..).zip(&sinks) {
            sink.put(&recorded(page));
        }
        assert_eq!(template.known(), [(10, 1), (11, 1), (12, 1)]);
        assert_eq!(template.nth(7).replay.unwrap().recordings, 3);
        let renewing = template.nth(model::RENEW_EVERY - 1);
        assert!(renewing.replay.is_none(), "it would not fault on them");
        renewing.record.unwrap().put(&recorded(20));
        assert_eq!(template.known(), [(20, 1)]);
        let adding = template.nth(model::RENEW_EVERY + model::REFRESH_EVERY - 1);
        adding.record.unwrap().put(&recorded(21));
        assert_eq!(template.known(), [(20, 1), (21, 1)]);
    }

    #[test]
    fn a_recording_that_ends_after_all_was_forgotten_is_not_put_in() {
        let template = Template::new();
        let late = template.nth(0).record.unwrap();
        template.forgotten.store(true, Ordering::SeqCst);
        template.store.remove();
        late.put(&recorded(10));
        assert!(template.known().is_empty());
    }
}
