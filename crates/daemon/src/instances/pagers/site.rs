//! The pagers of one image in this daemon: started when a machine needs them, ended when none does.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use memory::Image;
use model::{ImageId, InstanceId};
use pager::{Event, EventSink, ImagePager, PagerError, Place, VmStats};
use tokio::sync::{OwnedRwLockWriteGuard, RwLock, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use super::book::{Book, Standing};
use super::{PagerPolicy, Pagers};
use crate::instances::disk::remove_tree;
use crate::instances::journal::Journal;
use crate::instances::layout::Layout;
use crate::instances::{OpError, chain};

/// The pagers, while there are any. Calls hold it for reading, so that none is under way when they are ended.
type Slot = RwLock<Option<Box<dyn ImagePager>>>;

pub(super) struct Site {
    pub(super) image: ImageId,
    place: Place,
    layout: Layout,
    book: Mutex<Book>,
    /// Rises whenever something in the book has changed.
    pub(super) changed: watch::Sender<u64>,
    slot: Arc<Slot>,
}

impl Site {
    pub(super) fn new(image: ImageId, layout: &Layout) -> Self {
        Self {
            place: Place::at(layout.pagers().join(image.as_str())),
            image,
            layout: layout.clone(),
            book: Mutex::default(),
            changed: watch::Sender::new(0),
            slot: Arc::default(),
        }
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        // Whole between any two calls on it.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that something has changed.
    pub(super) fn touch(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    /// Has the pagers of the image, whose files are in `source` if they are not yet in the place.
    pub(super) async fn open(
        self: &Arc<Self>,
        pagers: &Arc<Pagers>,
        source: Option<&Path>,
    ) -> Result<(), OpError> {
        if self.slot.read().await.is_some() {
            return Ok(());
        }
        let mut slot = Arc::clone(&self.slot).write_owned().await;
        if slot.is_some() {
            return Ok(());
        }
        let (host, place, sink) = (Arc::clone(&pagers.host), self.place.clone(), self.sink());
        let source = source.map(Path::to_owned);
        let site = Arc::clone(self);
        let opened = run(move || {
            prepare(&place, source.as_deref())?;
            let pager = host.open(&place, sink)?;
            // Before anybody looks whether the pagers are needed. Whoever ends after this is heard of.
            let served = pager.vms()?;
            site.book().take_stock(&served);
            let served = pager.vms()?;
            site.book().check_stock(&served);
            Ok(pager)
        });
        *slot = Some(opened.await?);
        drop(slot);
        tokio::spawn(keep(
            Arc::clone(self),
            Arc::downgrade(pagers),
            pagers.policy,
        ));
        Ok(())
    }

    /// Asks the pagers, off the event loop.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn ImagePager) -> Result<T, PagerError> + Send + 'static,
    ) -> Result<T, OpError> {
        let slot = Arc::clone(&self.slot).read_owned().await;
        run(move || match slot.as_deref() {
            Some(pager) => Ok(question(pager)?),
            None => Err(PagerError::Lost {
                what: "it was ended".to_owned(),
            }
            .into()),
        })
        .await
    }

    /// Has the counters of all machines brought up to date.
    pub(super) async fn refresh(&self) -> Result<(), OpError> {
        let all = self.ask(|pager| pager.stats()).await?;
        let mut book = self.book();
        for named in all {
            if let Ok(vm) = named.vm.parse()
                && let Some(seat) = book.seat_mut(&vm)
            {
                seat.learn(&named.stats);
            }
        }
        Ok(())
    }

    fn sink(self: &Arc<Self>) -> EventSink {
        let site = Arc::downgrade(self);
        Box::new(move |event| {
            if let Some(site) = site.upgrade() {
                site.hear(event);
            }
        })
    }

    /// Runs in a thread of the pagers' side.
    fn hear(&self, event: Event) {
        crate::metrics::pager_event(&event);
        if let Event::Failed { vm, reason } = &event {
            warn!(instance = %vm, image = %self.image, why = %reason, "its memory cannot be served");
        }
        let told = self.book().note(event);
        for (vm, words) in told {
            Journal::new(&self.layout.instance(&vm)).note(&words);
        }
        self.touch();
    }

    /// Ends the pagers, unless somebody needs them.
    async fn close(&self) -> bool {
        let slot = Arc::clone(&self.slot).write_owned().await;
        if self.book().users().next().is_some() {
            return false;
        }
        let place = self.place.clone();
        if let Err(error) = run(move || end(slot, &place)).await {
            warn!(image = %self.image, why = %chain(&error), "the place of its pagers is left for the next start");
        }
        info!(image = %self.image, "no machine needs its pagers any more");
        true
    }

    /// Removes a place whose pagers cannot be had: with links to the image in it, the bytes of that would stay.
    pub(super) async fn clear(&self) {
        let place = self.place.clone();
        if let Err(error) = run(move || remove_tree(place.root())).await {
            warn!(image = %self.image, why = %chain(&error), "the place of its pagers is left for the next start");
        }
    }

    /// Machines that are to be completed now, and when the next one is.
    fn due(&self, policy: PagerPolicy, now: Instant) -> (Vec<InstanceId>, Option<Instant>) {
        let Some(after) = policy.graduate_after else {
            return (Vec::new(), None);
        };
        let mut book = self.book();
        let waiting = book.users().filter(|(_, seat)| {
            seat.standing == Standing::Served && !seat.graduating && seat.failure.is_none()
        });
        let times: Vec<_> = waiting
            .map(|(vm, seat)| (vm.clone(), seat.since + after))
            .collect();
        let (due, later): (Vec<_>, Vec<_>) = times.into_iter().partition(|(_, at)| *at <= now);
        for (vm, _) in &due {
            if let Some(seat) = book.seat_mut(vm) {
                seat.graduating = true;
            }
        }
        let next = later.into_iter().map(|(_, at)| at).min();
        (due.into_iter().map(|(vm, _)| vm).collect(), next)
    }

    async fn graduate(&self, vm: InstanceId, rate: u64) {
        let name = vm.to_string();
        let asked = self.ask(move |pager| pager.graduate(&name, rate)).await;
        if let Err(error) = asked {
            warn!(instance = %vm, why = %chain(&error), "its memory is not completed now");
            if let Some(seat) = self.book().seat_mut(&vm) {
                // Tried again when as much time has passed.
                seat.graduating = false;
                seat.since = Instant::now();
            }
        }
    }
}

/// Looks after the pagers of one image until nobody needs them.
async fn keep(site: Arc<Site>, pagers: Weak<Pagers>, policy: PagerPolicy) {
    let mut changed = site.changed.subscribe();
    let mut idle_since = None;
    loop {
        changed.borrow_and_update();
        let (due, mut next) = site.due(policy, Instant::now());
        for vm in due {
            site.graduate(vm, policy.graduate_rate).await;
        }
        if site.book().users().next().is_some() {
            idle_since = None;
        } else {
            let over = *idle_since.get_or_insert_with(Instant::now) + policy.linger;
            if over <= Instant::now() && site.close().await {
                if let Some(pagers) = pagers.upgrade() {
                    pagers.forget(&site);
                }
                return;
            }
            next = Some(next.map_or(over, |next| next.min(over)));
        }
        let pause = async {
            match next {
                Some(next) => tokio::time::sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The sender is in the site, which this task holds.
            _ = changed.changed() => {}
            () = pause => {}
        }
    }
}

/// Makes the place: with links to the image, unless they are there.
fn prepare(place: &Place, source: Option<&Path>) -> Result<(), OpError> {
    if let Some(source) = source
        && Image::open(&place.image()).is_err()
    {
        remove_tree(place.root())?;
        std::fs::create_dir_all(place.root())
            .map_err(OpError::disk("cannot make the place of a pager"))?;
        Image::open(source)?.link_into(&place.image())?;
    }
    std::fs::create_dir_all(place.run()).map_err(OpError::disk("cannot make the place of a pager"))
}

/// Those who serve nobody end with what is dropped here.
fn end(
    mut slot: OwnedRwLockWriteGuard<Option<Box<dyn ImagePager>>>,
    place: &Place,
) -> Result<(), OpError> {
    drop(slot.take());
    remove_tree(place.root())
}

/// Runs what blocks off the event loop, to its end.
pub(super) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OpError> + Send + 'static,
) -> Result<T, OpError> {
    crate::instances::blocking::blocking_op(work).await
}

/// Counters of one machine as they were last seen.
pub(super) fn stats_of(site: &Site, vm: &InstanceId) -> Option<(Standing, VmStats)> {
    let book = site.book();
    let seat = book.seat(vm)?;
    Some((seat.standing.clone(), seat.stats.clone()))
}
