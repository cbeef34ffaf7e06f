//! The memory of a machine as the kernel keeps it, byte by byte, and what its threads see of it.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::panic::resume_unwind;

use memory::{PAGE_BYTES, Run};

use crate::regions::Regions;
use crate::sys::{Bytes, Filled, Stop};
use crate::vm::GuestMemory;

type Page = Vec<u8>;

/// What a thread does with a page.
#[derive(Debug, Clone, Copy)]
pub(super) enum Access {
    Read,
    /// Puts a byte somewhere in it.
    Write(usize, u8),
}

/// What else can happen at a call.
#[derive(Debug, Clone, Copy)]
pub(super) enum Trouble {
    /// A removal is under way of which nobody is told.
    Busy,
    NoMemory,
    /// It ends after so many pages, without a reason.
    Short(u64),
    /// The pager is killed before the call, or after it and before it can note that.
    Kill {
        is_done: bool,
    },
}

/// Thrown by a call that its pager does not survive.
pub(super) struct Killed;

/// Threads that wait for a page.
#[derive(Debug, Default)]
struct Waiting {
    /// Whether a message about them was read.
    is_told: bool,
    accesses: Vec<(u64, Access)>,
}

/// Memory being given back. The call that does this waits until its message was read, and then drops the pages.
#[derive(Debug)]
struct Removal {
    run: Run,
    is_read: bool,
}

#[derive(Debug)]
pub(super) struct Kernel {
    regions: Regions,
    unit: u64,
    pages: BTreeMap<u64, Page>,
    /// The reference: what each page must hold, whether it is there or not.
    pub(super) wanted: Vec<Page>,
    waiting: BTreeMap<u64, Waiting>,
    /// Runs whose missing pages are zero without anybody being asked.
    unregistered: Vec<Run>,
    removals: VecDeque<Removal>,
    /// Calls until each, one after the other.
    pub(super) troubles: VecDeque<(u8, Trouble)>,
}

impl Kernel {
    pub(super) fn new(regions: Regions, unit: u64, bytes: &[u8]) -> Self {
        Self {
            regions,
            unit,
            pages: BTreeMap::new(),
            wanted: bytes.chunks(PAGE_BYTES).map(<[u8]>::to_vec).collect(),
            waiting: BTreeMap::new(),
            unregistered: Vec::new(),
            removals: VecDeque::new(),
            troubles: VecDeque::new(),
        }
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.waiting.is_empty() && self.removals.is_empty()
    }

    /// A thread comes to a page, which must be in RAM. It waits if that is not there.
    pub(super) fn touch(&mut self, page: u64, access: Access) {
        let mut unregistered = self.unregistered.iter();
        if unregistered.any(|run| (run.first..run.end()).contains(&page)) {
            self.pages
                .entry(page)
                .or_insert_with(|| vec![0; PAGE_BYTES]);
        }
        if self.pages.contains_key(&page) {
            self.access(page, access);
        } else {
            let unit = page - page % self.unit;
            let waiting = self.waiting.entry(unit).or_default();
            waiting.accesses.push((page, access));
        }
    }

    /// What a thread finds must be right, byte by byte.
    fn access(&mut self, page: u64, access: Access) {
        self.check(page);
        if let Access::Write(at, byte) = access
            && let Some(found) = self.pages.get_mut(&page)
        {
            found[at] = byte;
            // While it is being given back it may have been zero before.
            self.wanted[page as usize].clone_from(found);
        }
    }

    fn check(&self, page: u64) {
        let (found, wanted) = (&self.pages[&page], &self.wanted[page as usize]);
        let going = self
            .removals
            .iter()
            .any(|removal| (removal.run.first..removal.run.end()).contains(&page));
        let is_zero = || found.iter().all(|byte| *byte == 0);
        if found != wanted && !(going && is_zero()) {
            let at = found
                .iter()
                .zip(wanted)
                .position(|(one, other)| one != other);
            panic!("page {page} is wrong from byte {at:?} on");
        }
    }

    pub(super) fn check_all(&self) {
        self.pages.keys().for_each(|page| self.check(*page));
    }

    /// A call that gives memory back begins.
    pub(super) fn remove(&mut self, run: Run) {
        self.removals.push_back(Removal {
            run,
            is_read: false,
        });
    }

    /// The oldest of them drops its pages, if its message was read.
    pub(super) fn drop_pages(&mut self) {
        if self.removals.front().is_none_or(|removal| !removal.is_read) {
            return;
        }
        let Some(Removal { run, .. }) = self.removals.pop_front() else {
            return;
        };
        for page in run.first..run.end() {
            self.pages.remove(&page);
            self.wanted[page as usize].fill(0);
        }
    }

    /// A page that is waited for comes without the pager, and without waking anybody.
    pub(super) fn appear(&mut self, nth: usize) {
        let count = self.waiting.len().max(1);
        let Some(unit) = self.waiting.keys().nth(nth % count).copied() else {
            return;
        };
        for page in unit..unit + self.unit {
            let content = self.wanted[page as usize].clone();
            self.pages.entry(page).or_insert(content);
        }
    }

    /// Up to `most` messages as the kernel writes them, faults before removals as it does.
    pub(super) fn messages(&mut self, most: usize) -> Vec<[u64; 4]> {
        let regions = &self.regions;
        let address = |page: u64| {
            let region = regions.region_of(page).unwrap();
            region.address + (page - region.run().first) * PAGE_BYTES as u64
        };
        let untold = self.waiting.iter_mut().filter(|(_, it)| !it.is_told);
        let mut messages: Vec<_> = untold
            .take(most)
            .map(|(unit, waiting)| {
                waiting.is_told = true;
                // A VMM may have asked for addresses within pages.
                [0x12, 0, address(*unit) + *unit % 3 * 8, 0]
            })
            .collect();
        let unread = self.removals.iter_mut().filter(|removal| !removal.is_read);
        for removal in unread.take(most - messages.len()) {
            removal.is_read = true;
            let start = address(removal.run.first);
            let end = start + removal.run.count * PAGE_BYTES as u64;
            messages.push([0x15, start, end, 0]);
        }
        messages
    }

    fn range(&self, address: u64, len: u64) -> Vec<u64> {
        let (page, region) = self.regions.page_at(address).expect("outside of memory");
        let count = len / PAGE_BYTES as u64;
        assert!(page + count <= region.run().end(), "beyond a region");
        assert!(len.is_multiple_of(PAGE_BYTES as u64), "half a page");
        assert!(
            page.is_multiple_of(self.unit) && count.is_multiple_of(self.unit),
            "a part of a large page"
        );
        (page..page + count).collect()
    }

    fn trouble(&mut self) -> Option<Trouble> {
        let (left, trouble) = self.troubles.front_mut()?;
        if *left > 0 {
            *left -= 1;
            return None;
        }
        let trouble = *trouble;
        self.troubles.pop_front();
        Some(trouble)
    }

    fn fill(&mut self, address: u64, len: u64, content: impl Fn(usize) -> Page) -> Filled {
        let stopped = |stop| Filled {
            bytes: 0,
            stop: Some(stop),
        };
        let mut pages = self.range(address, len);
        let trouble = self.trouble();
        match trouble {
            Some(Trouble::Busy) => return stopped(Stop::Busy),
            Some(Trouble::NoMemory) => return stopped(Stop::NoMemory),
            Some(Trouble::Kill { is_done: false }) => resume_unwind(Box::new(Killed)),
            Some(Trouble::Short(most)) => pages.truncate((most.max(1) * self.unit) as usize),
            Some(Trouble::Kill { is_done: true }) | None => {}
        }
        if self.removals.iter().any(|removal| !removal.is_read) {
            return stopped(Stop::Busy);
        }
        let gone = |run: &Run| (run.first..run.end()).contains(&pages[0]);
        if self.unregistered.iter().any(gone) {
            return stopped(Stop::Refused(io::ErrorKind::NotFound.into()));
        }
        let there = |page: &u64| self.pages.contains_key(page);
        let count = pages.iter().position(there).unwrap_or(pages.len());
        if count == 0 {
            return stopped(Stop::Exists);
        }
        pages.truncate(count);
        for (nth, page) in pages.iter().enumerate() {
            self.pages.insert(*page, content(nth));
        }
        self.wake(&pages);
        if let Some(Trouble::Kill { .. }) = trouble {
            resume_unwind(Box::new(Killed));
        }
        Filled {
            bytes: (count * PAGE_BYTES) as u64,
            stop: None,
        }
    }

    /// Threads that are woken and find their page go on; others fault again.
    fn wake(&mut self, pages: &[u64]) {
        for page in pages {
            if !self.pages.contains_key(page) {
                if let Some(waiting) = self.waiting.get_mut(page) {
                    waiting.is_told = false;
                }
            } else if let Some(waiting) = self.waiting.remove(page) {
                for (page, access) in waiting.accesses {
                    self.access(page, access);
                }
            }
        }
    }
}

impl GuestMemory for RefCell<Kernel> {
    fn copy(&self, address: u64, bytes: &Bytes<'_>) -> Filled {
        let bytes = bytes.to_vec();
        let content = |nth: usize| bytes[nth * PAGE_BYTES..][..PAGE_BYTES].to_vec();
        self.borrow_mut().fill(address, bytes.len() as u64, content)
    }

    fn zero(&self, address: u64, len: u64) -> Filled {
        assert_eq!(self.borrow().unit, 1, "the kernel cannot do that");
        self.borrow_mut()
            .fill(address, len, |_| vec![0; PAGE_BYTES])
    }

    fn wake(&self, address: u64, len: u64) -> io::Result<()> {
        let mut kernel = self.borrow_mut();
        let trouble = kernel.trouble();
        if let Some(Trouble::Kill { is_done: false }) = trouble {
            resume_unwind(Box::new(Killed));
        }
        let pages = kernel.range(address, len);
        kernel.wake(&pages);
        if let Some(Trouble::Kill { is_done: true }) = trouble {
            resume_unwind(Box::new(Killed));
        }
        Ok(())
    }

    fn unregister(&self, address: u64, len: u64) -> io::Result<()> {
        let mut kernel = self.borrow_mut();
        let trouble = kernel.trouble();
        match trouble {
            Some(Trouble::NoMemory | Trouble::Busy) => {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            Some(Trouble::Kill { is_done: false }) => resume_unwind(Box::new(Killed)),
            Some(Trouble::Kill { is_done: true } | Trouble::Short(_)) | None => {}
        }
        let pages = kernel.range(address, len);
        let (first, count) = (pages[0], pages.len() as u64);
        kernel.unregistered.push(Run { first, count });
        if let Some(Trouble::Kill { .. }) = trouble {
            resume_unwind(Box::new(Killed));
        }
        Ok(())
    }
}
