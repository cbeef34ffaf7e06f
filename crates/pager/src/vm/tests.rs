//! Random images, faults, removals and lost pagers, against a kernel of our own that knows every byte.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;

use memory::ImageError;
use proptest::prelude::*;

use super::*;
use crate::layout::Extent;
use crate::regions::Region;
use crate::state;
use crate::sys::{Bytes, Filled, Stop};

const PAGES: u64 = 96;
const BASE: u64 = 0x10_0000;

/// What a page holds: which layer's which page, or zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Zero,
    Data(u8, u8),
}

/// Whether somebody was told that a thread waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    No,
    Yes,
}

/// The memory of a machine as the kernel keeps it.
#[derive(Debug, Default)]
struct Kernel {
    pages: BTreeMap<u64, Content>,
    /// Pages that threads wait for, and whether a message about that was read.
    waiting: BTreeMap<u64, Told>,
    /// Calls left until one is answered with EAGAIN, over and over.
    busy_in: Vec<u8>,
    unit: u64,
}

impl Kernel {
    fn range(&self, address: u64, len: u64) -> Vec<u64> {
        let page = (address - BASE) / PAGE_BYTES as u64;
        let count = len / PAGE_BYTES as u64;
        assert!(page + count <= PAGES, "outside of memory");
        assert!(
            page.is_multiple_of(self.unit) && count.is_multiple_of(self.unit),
            "a part of a large page"
        );
        (page..page + count).collect()
    }

    fn fill(&mut self, address: u64, len: u64, content: impl Fn(usize) -> Content) -> Filled {
        if let Some(left) = self.busy_in.last_mut() {
            if *left == 0 {
                self.busy_in.pop();
                return Filled {
                    bytes: 0,
                    stop: Some(Stop::Busy),
                };
            }
            *left -= 1;
        }
        let pages = self.range(address, len);
        for (nth, page) in pages.iter().enumerate() {
            if self.pages.contains_key(page) {
                let bytes = nth as u64 * PAGE_BYTES as u64;
                let stop = (bytes == 0).then_some(Stop::Exists);
                return Filled { bytes, stop };
            }
            self.pages.insert(*page, content(nth));
            self.waiting.remove(page);
        }
        Filled {
            bytes: len,
            stop: None,
        }
    }
}

impl GuestMemory for RefCell<Kernel> {
    fn copy(&self, address: u64, bytes: &Bytes<'_>) -> Filled {
        let bytes = bytes.to_vec();
        let content = |nth: usize| match &bytes[nth * PAGE_BYTES..][..3] {
            [0, ..] => Content::Zero,
            [_, layer, page] => Content::Data(*layer, *page),
            _ => unreachable!("three bytes"),
        };
        self.borrow_mut().fill(address, bytes.len() as u64, content)
    }

    fn zero(&self, address: u64, len: u64) -> Filled {
        assert_eq!(self.borrow().unit, 1, "the kernel cannot do that");
        self.borrow_mut().fill(address, len, |_| Content::Zero)
    }

    fn wake(&self, address: u64, len: u64) -> io::Result<()> {
        let mut kernel = self.borrow_mut();
        for page in kernel.range(address, len) {
            // A thread that is woken and finds its page goes on; another one faults again.
            if kernel.pages.contains_key(&page) {
                kernel.waiting.remove(&page);
            } else if let Some(told) = kernel.waiting.get_mut(&page) {
                *told = Told::No;
            }
        }
        Ok(())
    }
}

/// Pages that say which they are, a few at a time.
struct Marked(Vec<u8>);

impl Source for Marked {
    fn read(&mut self, extent: Extent) -> Result<Bytes<'_>, ImageError> {
        let count = extent.run.count.min(3);
        self.0.clear();
        for nth in 0..count {
            let start = self.0.len();
            self.0.resize(start + PAGE_BYTES, 0);
            let mark = [1, extent.layer as u8, (extent.position + nth) as u8];
            self.0[start..start + 3].copy_from_slice(&mark);
        }
        Ok(Bytes::from(&self.0[..]))
    }

    fn read_into(&mut self, extent: Extent, buffer: &mut [u8]) -> Result<(), ImageError> {
        for (nth, page) in buffer.chunks_mut(PAGE_BYTES).enumerate() {
            page[..3].copy_from_slice(&[1, extent.layer as u8, extent.position as u8 + nth as u8]);
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Threads touch pages.
    Touch(Vec<u64>),
    /// Memory is given back.
    Remove(u64, u64),
    /// The loop works on faults.
    Serve,
    /// The loop fills ahead.
    Ahead,
    Prefetch(u64, u64),
    Graduate,
    /// The pager is lost after it has read everything.
    Die,
    /// A page that is waited for comes without the pager, and without waking anybody.
    Appear(usize),
    /// Some of the next calls find a removal under way.
    Busy(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let run = (0..PAGES, 1_u64..20);
    prop_oneof![
        6 => prop::collection::vec(0..PAGES, 1..4).prop_map(Step::Touch),
        2 => run.clone().prop_map(|(first, count)| Step::Remove(first, count.min(PAGES - first))),
        6 => Just(Step::Serve),
        3 => Just(Step::Ahead),
        1 => run.prop_map(|(first, count)| Step::Prefetch(first, count)),
        1 => Just(Step::Graduate),
        1 => Just(Step::Die),
        1 => any::<usize>().prop_map(Step::Appear),
        2 => (0_u8..4).prop_map(Step::Busy),
    ]
}

fn layers() -> impl Strategy<Value = Vec<Vec<Run>>> {
    let run = (0..PAGES, 1_u64..30).prop_map(|(first, count)| Run {
        first,
        count: count.min(PAGES - first),
    });
    prop::collection::vec(
        prop::collection::vec(run, 0..4).prop_map(memory::merge_runs),
        0..4,
    )
}

/// Everything under test, and what must be true of it.
struct World {
    kernel: RefCell<Kernel>,
    state_fd: std::os::fd::OwnedFd,
    layout: Arc<Layout>,
    unit: u64,
    vm: Vm,
    source: Marked,
    now: Instant,
    /// What each page must hold when it is next filled.
    wanted: Vec<Content>,
}

impl World {
    fn new(layers: &[Vec<Run>], unit: u64) -> Self {
        let mut wanted = vec![Content::Zero; PAGES as usize];
        for (layer, runs) in layers.iter().enumerate() {
            let pages = runs.iter().flat_map(|run| run.first..run.end());
            for (position, page) in pages.enumerate() {
                wanted[page as usize] = Content::Data(layer as u8, position as u8);
            }
        }
        let layout = Arc::new(Layout::new(PAGES, layers.iter().map(Vec::as_slice)));
        let state_fd = state::create(PAGES).unwrap();
        let kernel = RefCell::new(Kernel {
            unit,
            ..Kernel::default()
        });
        let vm = Self::vm(&layout, &state_fd, unit);
        Self {
            kernel,
            state_fd,
            layout,
            unit,
            vm,
            source: Marked(Vec::new()),
            now: Instant::now(),
            wanted,
        }
    }

    fn vm(layout: &Arc<Layout>, state_fd: &std::os::fd::OwnedFd, unit: u64) -> Vm {
        // Not checked: the units of the test are smaller than those of real hosts.
        let region = Region {
            address: BASE,
            bytes: PAGES * PAGE_BYTES as u64,
            offset: 0,
            page_bytes: unit * PAGE_BYTES as u64,
        };
        let batches = Batches {
            fault_pages: 8,
            zero_pages: 32,
        };
        let state = State::open(state_fd, PAGES).unwrap();
        Vm::new(
            layout.clone(),
            Regions::unchecked(vec![region]),
            state,
            batches,
        )
    }

    fn touch(&mut self, pages: &[u64]) {
        for page in pages {
            let page = page - page % self.unit;
            let mut kernel = self.kernel.borrow_mut();
            if !kernel.pages.contains_key(&page) {
                kernel.waiting.entry(page).or_insert(Told::No);
            }
        }
    }

    /// The kernel tells of removals and faults; a few messages at a time, removals after faults as it does.
    fn deliver(&mut self, removal: Option<Run>) {
        let address = |page: u64| BASE + page * PAGE_BYTES as u64;
        let mut kernel = self.kernel.borrow_mut();
        let untold = kernel
            .waiting
            .iter_mut()
            .filter(|(_, told)| **told == Told::No);
        let mut messages: Vec<[u64; 4]> = untold
            .take(state::SLOTS - 1)
            .map(|(page, told)| {
                *told = Told::Yes;
                [0x12, 0, address(*page), 0]
            })
            .collect();
        if let Some(run) = removal {
            messages.push([0x15, address(run.first), address(run.end()), 0]);
        }
        for (slot, message) in self.vm.state().slots().iter().zip(&messages) {
            for (word, value) in slot.iter().zip(message) {
                word.store(*value, std::sync::atomic::Ordering::Release);
            }
        }
    }

    fn read(&mut self) {
        self.deliver(None);
        self.vm.take_messages(state::SLOTS, self.now).unwrap();
    }

    /// The removal is read, by this pager or, if it dies of that, by the next; then the pages go.
    fn remove(&mut self, run: Run, dies: bool) {
        let run = Run {
            first: run.first - run.first % self.unit,
            count: run.count.next_multiple_of(self.unit),
        };
        let run = Run {
            count: run.count.min(PAGES - run.first),
            ..run
        };
        self.deliver(Some(run));
        if dies {
            self.die();
        } else {
            self.vm.take_messages(state::SLOTS, self.now).unwrap();
        }
        for page in run.first..run.end() {
            self.kernel.borrow_mut().pages.remove(&page);
            self.wanted[page as usize] = Content::Zero;
        }
    }

    /// Another pager takes over. Woken threads that still miss their page fault again.
    fn die(&mut self) {
        self.vm = Self::vm(&self.layout, &self.state_fd, self.unit);
        self.vm.take_over(&self.kernel, self.now).unwrap();
    }

    fn serve(&mut self) {
        self.read();
        // Each fault is answered, or put off by one of the calls that are told to be.
        for _ in 0..PAGES {
            self.now += Duration::from_micros(1);
            self.vm
                .serve_fault(&self.kernel, &mut self.source, self.now)
                .unwrap();
        }
    }

    fn step(&mut self, step: Step, dies: bool) {
        match step {
            Step::Touch(pages) => self.touch(&pages),
            Step::Remove(first, count) => self.remove(Run { first, count }, dies),
            Step::Serve => self.serve(),
            Step::Ahead => {
                self.now += Duration::from_secs(1);
                self.vm
                    .serve_ahead(&self.kernel, &mut self.source, 16, self.now)
                    .unwrap();
            }
            Step::Prefetch(first, count) => self.vm.prefetch(&HotPages {
                recordings: 1,
                ready: vec![(first, count)],
                exec: Vec::new(),
            }),
            Step::Graduate => self.vm.graduate(1 << 40, self.now),
            Step::Die => {
                // What it has read is lost with it.
                self.deliver(None);
                self.die();
            }
            Step::Appear(nth) => {
                let mut kernel = self.kernel.borrow_mut();
                let waiting = kernel.waiting.len();
                let page = kernel.waiting.keys().nth(nth % waiting.max(1)).copied();
                if let Some(page) = page
                    && self.unit == 1
                {
                    kernel.pages.insert(page, self.wanted[page as usize]);
                }
            }
            Step::Busy(calls) => self.kernel.borrow_mut().busy_in.push(calls),
        }
        for (page, content) in &self.kernel.borrow().pages {
            assert_eq!(*content, self.wanted[*page as usize], "page {page}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn pages_are_right_and_nobody_waits_for_ever(
        layers in layers(),
        unit in prop_oneof![3 => Just(1_u64), 1 => Just(4)],
        steps in prop::collection::vec((step(), any::<bool>()), 1..60),
    ) {
        let mut world = World::new(&layers, unit);
        for (step, dies) in steps {
            world.step(step, dies);
        }
        world.kernel.borrow_mut().busy_in.clear();
        // Each reading brings up to 31 faults, and all of them are served.
        for _ in 0..PAGES {
            world.serve();
        }
        prop_assert!(world.kernel.borrow().waiting.is_empty());
        // Completing it leaves out nothing but zeros, which the kernel knows by itself.
        world.vm.graduate(1 << 40, world.now);
        while !world.vm.has_graduated() {
            world.step(Step::Ahead, false);
        }
        for page in 0..PAGES {
            let found = world.kernel.borrow().pages.get(&page).copied();
            prop_assert_eq!(found.unwrap_or(Content::Zero), world.wanted[page as usize], "page {}", page);
        }
    }
}
