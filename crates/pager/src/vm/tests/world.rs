//! A machine under test, with an image on disk, the kernel's memory under it, and pagers that may be killed any time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use memory::{Image, ImageError, PAGE_BYTES, Run};

use super::kernel::{Access, Kernel, Killed, Trouble};
use super::reference::{Layer, Reference};
use super::{PAGES, RATES};
use crate::hot::HotPages;
use crate::layout::{Extent, Layout};
use crate::plan::Batches;
use crate::regions::{Region, Regions};
use crate::source::{LayerFiles, Source};
use crate::state::{self, State};
use crate::sys::Bytes;
use crate::vm::{Failure, Served, Vm};

/// What happens next.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Threads come to pages.
    Touch(Vec<(u64, Access)>),
    /// Memory begins to be given back.
    Remove(Run),
    /// What was being given back first is gone now.
    DropPages,
    /// Messages are read; the pager may be killed before it acts on them.
    Read {
        dies: bool,
    },
    /// So many faults are worked on.
    Serve(u8),
    /// Up to so many pages are filled ahead.
    Ahead(u64),
    Prefetch(Vec<(u64, u64)>),
    /// At this one of the rates.
    Graduate(usize),
    Die,
    Appear(usize),
    /// After so many calls.
    Trouble(u8, Trouble),
}

/// The layers of an image, a few pages at a time.
struct Few {
    files: LayerFiles,
    pages: u64,
}

impl Source for Few {
    fn read(&mut self, mut extent: Extent) -> Result<Bytes<'_>, ImageError> {
        extent.run.count = extent.run.count.min(self.pages);
        self.files.read(extent)
    }

    fn read_into(&mut self, extent: Extent, buffer: &mut [u8]) -> Result<(), ImageError> {
        self.files.read_into(extent, buffer)
    }
}

/// What a machine is made of.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub(super) layers: Vec<Layer>,
    /// Checked by the test only: the large pages of the test are smaller than those of real hosts.
    pub(super) regions: Vec<Region>,
    pub(super) unit: u64,
    pub(super) batches: Batches,
    /// Most pages that a read of the image gives.
    pub(super) few: u64,
}

pub(super) struct World {
    machine: Machine,
    kernel: RefCell<Kernel>,
    state_fd: OwnedFd,
    layout: Arc<Layout>,
    source: Few,
    vm: Vm,
    /// What the next pager would be told.
    rate: Option<u64>,
    now: Instant,
}

impl World {
    /// A machine whose layers are those of the image of `reference`.
    pub(super) fn new(machine: &Machine, reference: &Reference) -> Self {
        let image = Image::open(&reference.dir).unwrap();
        let (files, layout) = LayerFiles::open(&image, 128 << 10).unwrap();
        let layout = Arc::new(layout);
        let regions = Regions::unchecked(machine.regions.clone());
        let state_fd = state::create(PAGES).unwrap();
        Self {
            kernel: RefCell::new(Kernel::new(regions, machine.unit, &reference.bytes)),
            source: Few {
                files,
                pages: machine.few,
            },
            vm: pager(machine, &layout, &state_fd),
            rate: None,
            now: Instant::now(),
            machine: machine.clone(),
            state_fd,
            layout,
        }
    }

    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Touch(accesses) => {
                let mut kernel = self.kernel.borrow_mut();
                for (page, access) in accesses {
                    if self.vm.regions().region_of(page).is_some() {
                        kernel.touch(page, access);
                    }
                }
            }
            Step::Remove(run) => self.remove(run),
            Step::DropPages => self.kernel.borrow_mut().drop_pages(),
            Step::Read { dies } => self.read(dies),
            Step::Serve(faults) => self.serve(faults),
            Step::Ahead(pages) => self.fill_ahead(pages),
            Step::Prefetch(ready) => self.vm.prefetch(&HotPages {
                recordings: 1,
                ready,
                exec: Vec::new(),
            }),
            Step::Graduate(nth) => {
                self.rate = Some(RATES[nth]);
                self.vm.graduate(RATES[nth], self.now);
            }
            Step::Die => self.die(),
            Step::Appear(nth) => self.kernel.borrow_mut().appear(nth),
            Step::Trouble(calls, trouble) => {
                let mut kernel = self.kernel.borrow_mut();
                kernel.troubles.push_back((calls, trouble));
            }
        }
        self.kernel.borrow().check_all();
    }

    /// Everybody gets what they wait for, the machine is completed, and every byte of it is right.
    /// `troubles` come while it is let go.
    pub(super) fn end(mut self, troubles: Vec<(u8, Trouble)>) {
        self.kernel.borrow_mut().troubles.clear();
        let mut rounds = 0;
        while !self.kernel.borrow().is_quiet() {
            self.step(Step::Serve(u8::MAX));
            self.step(Step::DropPages);
            rounds += 1;
            assert!(rounds <= 2 * PAGES, "somebody waits for ever");
        }
        // One that was begun must leave out nothing, whatever came in between.
        if self.rate.is_none() {
            self.step(Step::Graduate(RATES.len() - 1));
        }
        let mut troubles = VecDeque::from(troubles);
        loop {
            while !self.vm.has_graduated() {
                self.step(Step::Ahead(16));
                rounds += 1;
                assert!(rounds <= 100 * PAGES, "it is never complete");
            }
            self.kernel
                .borrow_mut()
                .troubles
                .extend(troubles.pop_front());
            let (kernel, now) = (&self.kernel, self.now);
            match alive(|| self.vm.let_go(kernel, now)) {
                Some(let_go) => match let_go.unwrap() {
                    Served::Done => break,
                    Served::Busy | Served::Gone => {}
                },
                None => self.die(),
            }
        }
        let regions: Vec<_> = self.vm.regions().iter().collect();
        let mut kernel = self.kernel.into_inner();
        for region in regions {
            let run = region.run();
            (run.first..run.end()).for_each(|page| kernel.touch(page, Access::Read));
        }
        assert!(kernel.is_quiet(), "somebody waits for a pager");
    }

    /// One call for each region that is concerned, as the kernel splits it.
    fn remove(&mut self, run: Run) {
        let unit = self.machine.unit;
        let (first, end) = (
            run.first - run.first % unit,
            run.end().next_multiple_of(unit),
        );
        for region in self.vm.regions().iter() {
            let first = first.max(region.run().first);
            let end = end.min(region.run().end());
            if first < end {
                let count = end - first;
                self.kernel.borrow_mut().remove(Run { first, count });
            }
        }
    }

    fn read(&mut self, dies: bool) {
        let messages = self.kernel.borrow_mut().messages(state::SLOTS);
        for (slot, message) in self.vm.state().slots().iter().zip(&messages) {
            for (word, value) in slot.iter().zip(message) {
                word.store(*value, Ordering::Release);
            }
        }
        if dies {
            self.die();
        } else {
            self.vm.take_messages(messages.len(), self.now).unwrap();
        }
    }

    fn serve(&mut self, faults: u8) {
        self.read(false);
        for _ in 0..faults {
            if !self.vm.has_faults() {
                return;
            }
            self.now += Duration::from_micros(1);
            let (kernel, source, now) = (&self.kernel, &mut self.source, self.now);
            match alive(|| self.vm.serve_fault(kernel, source, now)) {
                Some(served) => drop(served.unwrap()),
                None => return self.die(),
            }
        }
    }

    fn fill_ahead(&mut self, pages: u64) {
        self.now += Duration::from_millis(20);
        let (kernel, source, now) = (&self.kernel, &mut self.source, self.now);
        match alive(|| self.vm.serve_ahead(kernel, source, pages, now)) {
            Some(served) => drop(served.unwrap()),
            None => self.die(),
        }
    }

    /// Another pager takes over, or one after it: those may be killed too.
    fn die(&mut self) {
        loop {
            self.vm = pager(&self.machine, &self.layout, &self.state_fd);
            if let Some(rate) = self.rate {
                self.vm.graduate(rate, self.now);
            }
            if let Some(taken) = alive(|| {
                let taken = self.vm.take_over(&self.kernel, self.now);
                taken.map(|()| Served::Done)
            }) {
                taken.unwrap();
                return;
            }
        }
    }
}

fn pager(machine: &Machine, layout: &Arc<Layout>, state_fd: &OwnedFd) -> Vm {
    Vm::new(
        Arc::clone(layout),
        Regions::unchecked(machine.regions.clone()),
        State::open(state_fd, PAGES).unwrap(),
        machine.batches,
    )
}

/// `None` if the pager was killed in a call.
fn alive(work: impl FnOnce() -> Result<Served, Failure>) -> Option<Result<Served, Failure>> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => Some(result),
        Err(thrown) if thrown.is::<Killed>() => None,
        Err(thrown) => resume_unwind(thrown),
    }
}

/// Guest RAM in pieces, with holes in it and between their addresses, in any order.
pub(super) fn regions(cuts: &[(u64, bool)], order: bool, unit: u64) -> Vec<Region> {
    let mut bounds: Vec<u64> = cuts.iter().map(|(at, _)| at - at % unit).collect();
    bounds.extend([0, PAGES]);
    bounds.sort_unstable();
    bounds.dedup();
    let is_hole = |nth: usize| cuts.get(nth).is_some_and(|(_, hole)| *hole);
    let mut pieces: Vec<Run> = bounds
        .windows(2)
        .enumerate()
        .filter(|(nth, _)| !is_hole(*nth))
        .map(|(_, pair)| Run {
            first: pair[0],
            count: pair[1] - pair[0],
        })
        .collect();
    if order {
        pieces.reverse();
    }
    let page = PAGE_BYTES as u64;
    let mut address = 0x10_0000;
    let mut regions = Vec::new();
    for (nth, run) in pieces.into_iter().enumerate() {
        // Every second one follows the one before it without a gap.
        address += (nth as u64 % 2) * 64 * page;
        regions.push(Region {
            address,
            bytes: run.count * page,
            offset: run.first * page,
            page_bytes: unit * page,
        });
        address += run.count * page;
    }
    regions
}
