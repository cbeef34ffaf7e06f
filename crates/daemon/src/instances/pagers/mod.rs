//! Pagers: processes that fill the memory of machines page by page, one for each memory image in use. And the hot pages
//! of templates, for the machines of pagers and for those that map their memory.
//!
//! A pager is started for the first machine that needs it and ends after the last. What a machine's pager reports
//! is kept here for its actor: a machine whose memory cannot be served is killed, and its instance says why. After a
//! restart of the daemon pagers are found again; a machine without one, whose memory is not complete, is killed.

mod attach;
mod book;
mod hot;
mod mapped;
mod marks;
mod paged;
mod site;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use hypervisor::Vm;
use model::{BackendWish, ImageId, InstanceId, Prefetch};
use pager::{ImagePager, PagerHost};
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::layout::{InstanceDir, Layout};
use super::{OpError, chain};
use site::Site;

pub(super) use attach::Paging;
pub use book::Totals;
pub(super) use hot::HotOrder;
pub use hot::HotStore;
use mapped::Turns;
pub use mapped::{Mapped, MappedFigures};
pub use paged::{Figures, Paged};

/// How long a scrape of metrics waits for pagers.
const TOTALS: Duration = Duration::from_secs(3);

/// What the server wants of pagers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PagerPolicy {
    /// What forks get that say nothing, of templates that say nothing.
    pub backend: BackendWish,
    /// Machines that have been served for so long are completed; none = never.
    pub graduate_after: Option<Duration>,
    /// How fast, in bytes per second.
    pub graduate_rate: u64,
    /// How long pagers without machines stay, for the next machine.
    pub linger: Duration,
    /// How long a fork is recorded after it was ready, if no command ends its recording before.
    pub record_for: Duration,
}

/// The pagers of this host.
pub struct Pagers {
    host: Arc<dyn PagerHost>,
    unusable: Option<String>,
    layout: Layout,
    policy: PagerPolicy,
    sites: Mutex<Sites>,
    /// One recording of hot pages is put in at a time.
    writing: Arc<Mutex<()>>,
    /// Machines that map their memory and get hot pages at one time.
    entering: Arc<Semaphore>,
}

#[derive(Default)]
struct Sites {
    open: HashMap<ImageId, Arc<Site>>,
    /// Forks of each image so far.
    forks: HashMap<ImageId, Forks>,
    /// Counters of images that are not in use any more.
    past: Totals,
    /// Why machines have failed while no daemon was there, for those who look for them after a start.
    unheard: HashMap<InstanceId, String>,
}

/// Forks of an image since its hot pages were forgotten.
#[derive(Default)]
struct Forks {
    next: u64,
    /// They are forgotten again: what is being recorded is of no use any more.
    forgotten: Arc<AtomicBool>,
}

/// What became of a machine's pager while there was no daemon.
pub(super) enum Found {
    /// It serves.
    Served(Arc<Paged>),
    /// It is not needed any more.
    Complete,
    /// It cannot be had: the machine must not go on.
    Lost(String),
}

impl Pagers {
    /// Pagers that are started by `host`; nothing is done yet.
    pub fn new(host: Arc<dyn PagerHost>, layout: &Layout, policy: PagerPolicy) -> Arc<Self> {
        Arc::new(Self {
            unusable: host.unusable(),
            host,
            layout: layout.clone(),
            policy,
            sites: Mutex::default(),
            writing: Arc::default(),
            entering: Arc::new(Semaphore::new(mapped::AT_ONCE)),
        })
    }

    /// What the server wants.
    #[must_use]
    pub fn policy(&self) -> PagerPolicy {
        self.policy
    }

    /// Why no machine can get its memory from a pager on this host; none if they can.
    #[must_use]
    pub fn unusable(&self) -> Option<&str> {
        self.unusable.as_deref()
    }

    /// Finds the pagers that an earlier daemon has left. Those that cannot be had are left out: their machines
    /// are killed when they are found.
    pub(super) async fn find(self: &Arc<Self>) {
        let Ok(entries) = std::fs::read_dir(self.layout.pagers()) else {
            // There have never been any.
            return;
        };
        let found = entries.flatten().filter_map(|entry| {
            let name = entry.file_name();
            name.to_str()?.parse::<ImageId>().ok()
        });
        join_all(found.map(|image| self.find_one(image))).await;
    }

    async fn find_one(self: &Arc<Self>, image: ImageId) {
        let site = self.site(&image);
        match site.open(self, None).await {
            Ok(()) => {
                let (machines, unheard) = {
                    let book = site.book();
                    (book.users().count(), book.unheard())
                };
                self.sites().unheard.extend(unheard);
                info!(%image, machines, "found its pagers");
            }
            Err(error) => {
                warn!(%image, why = %chain(&error), "its pagers cannot be had; machines that need them are killed");
                site.clear().await;
                self.forget(&site);
            }
        }
    }

    /// Takes over a machine that runs on a pager according to its record. `pid` is that of its VMM.
    pub(super) async fn adopt(
        self: &Arc<Self>,
        image: &ImageId,
        vm: &InstanceId,
        pid: i32,
    ) -> Found {
        if let Some(reason) = self.sites().unheard.remove(vm) {
            return Found::Lost(reason);
        }
        let site = self.site(image);
        let failure = {
            let mut book = site.book();
            let seat = book.seat_mut(vm);
            seat.map(|seat| {
                seat.held = true;
                seat.failure.clone()
            })
        };
        match failure {
            Some(Some(reason)) => Found::Lost(reason),
            Some(None) => Found::Served(Arc::new(Paged::new(site, vm.clone()))),
            None => {
                let host = Arc::clone(&self.host);
                let complete = site::run(move || {
                    let failed = OpError::disk("cannot examine the memory of the VMM");
                    host.is_complete(pid).map_err(failed)
                });
                match complete.await {
                    Ok(true) => Found::Complete,
                    Ok(false) => Found::Lost("its pager is gone".to_owned()),
                    Err(error) => Found::Lost(format!("its pager is gone: {}", chain(&error))),
                }
            }
        }
    }

    /// Why a machine of the image that has ended was killed, if its pager had it killed.
    pub(super) fn failure(&self, image: &ImageId, vm: &InstanceId) -> Option<String> {
        let mut sites = self.sites();
        let unheard = sites.unheard.remove(vm);
        let site = sites.open.get(image).cloned();
        drop(sites);
        if unheard.is_some() {
            return unheard;
        }
        let site = site?;
        let book = site.book();
        book.seat(vm)?.failure.clone()
    }

    /// What the next fork of a template is to have of its hot pages; `prepared`: before somebody asks for it.
    pub(super) fn hot_order(
        &self,
        template: &InstanceDir,
        image: &ImageId,
        prefetch: Prefetch,
        prepared: bool,
    ) -> HotOrder {
        let mut sites = self.sites();
        let forks = sites.forks.entry(image.clone()).or_default();
        let nth = forks.next;
        forks.next += 1;
        HotOrder {
            store: self.hot_store(template, image),
            prefetch,
            nth,
            prepared,
            forgotten: Arc::clone(&forks.forgotten),
        }
    }

    /// Has a machine that maps its template's memory record the hot pages of that, or get them, beside whatever it
    /// does. None if its VMM cannot tell what it touches.
    pub(super) fn map(&self, vm: &Arc<dyn Vm>, order: HotOrder) -> Option<Arc<Mapped>> {
        vm.mapped_ram()?;
        Some(Mapped::begin(
            Arc::clone(vm),
            order,
            Turns {
                host: Arc::clone(&self.host),
                entering: Arc::clone(&self.entering),
                record_for: self.policy.record_for,
            },
        ))
    }

    /// The hot pages of a template.
    #[must_use]
    pub fn hot_store(&self, template: &InstanceDir, image: &ImageId) -> HotStore {
        HotStore::new(template, image, Arc::clone(&self.writing))
    }

    /// The image is no template's any more, or its hot pages are to be recorded anew. What is being recorded is not put in.
    pub(super) fn forget_hot_pages(&self, template: &InstanceDir, image: &ImageId) {
        if let Some(forks) = self.sites().forks.remove(image) {
            forks.forgotten.store(true, Ordering::SeqCst);
        }
        self.hot_store(template, image).remove();
    }

    /// Counters of all machines there ever were, pagers that are up, and machines that need them.
    pub async fn totals(&self) -> PagerTotals {
        let (sites, past) = {
            let sites = self.sites();
            (
                sites.open.values().cloned().collect::<Vec<_>>(),
                sites.past.clone(),
            )
        };
        let fresh = join_all(sites.iter().map(|site| site.refresh()));
        // Older figures are better than none.
        let _ = tokio::time::timeout(TOTALS, fresh).await;
        let mut totals = PagerTotals {
            images: 0,
            machines: 0,
            sum: past,
        };
        for site in sites {
            let book = site.book();
            let machines = book.users().count() as u64;
            totals.images += u64::from(machines > 0);
            totals.machines += machines;
            totals.sum.add(&book.totals().0);
        }
        totals
    }

    fn sites(&self) -> MutexGuard<'_, Sites> {
        // Whole between any two calls on it.
        self.sites.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn site(&self, image: &ImageId) -> Arc<Site> {
        let mut sites = self.sites();
        let site = sites.open.entry(image.clone());
        let new = || Arc::new(Site::new(image.clone(), &self.layout));
        Arc::clone(site.or_insert_with(new))
    }

    /// Forgets an image that nobody uses. Somebody who has got hold of the site meanwhile goes on with it.
    fn forget(&self, site: &Arc<Site>) {
        let mut sites = self.sites();
        // The map's, and the caller's; more are only handed out under the lock that is held here.
        if Arc::strong_count(site) == 2
            && let Some(site) = sites.open.remove(&site.image)
        {
            let totals = site.book().totals();
            sites.past.add(&totals.0);
        }
    }
}

/// What all pagers did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PagerTotals {
    /// Images that are served.
    pub images: u64,
    /// Machines that are served.
    pub machines: u64,
    /// Sums.
    pub sum: Totals,
}
