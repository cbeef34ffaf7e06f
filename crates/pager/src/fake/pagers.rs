//! Pagers that outlive the daemon, without userfaultfd: they take hand-overs, answer faults, and keep count.
//!
//! What a machine hands over is a socket. On that it is told once that its first fault was answered, and may name
//! more pages, each of which is answered by a byte, or by the machine's end.
#![expect(
    clippy::unwrap_used,
    reason = "it stands in for pagers in tests, which fail by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use memory::{Image, PAGE_BYTES};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use crate::{
    Attach, Event, EventSink, HotPages, ImagePager, Mark, NamedStats, PagerError, PagerHost, Place,
    VmStats,
};

/// What every machine touches first, as (first page, pages).
pub const TOUCHED: (u64, u64) = (3, 16);

/// Hosts' pagers, by the places of their images. Clones are the same.
#[derive(Clone, Default)]
pub struct FakePagers {
    inner: Arc<Inner>,
    /// What the pagers that this one starts are made of.
    build: &'static str,
    /// Why it cannot have any, for a daemon that starts.
    lack: Option<&'static str>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    /// Something has changed.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    images: BTreeMap<PathBuf, Served>,
    /// Machines that were completed and run on, by what came first of their names.
    complete: Vec<String>,
    refuse: Option<String>,
    /// Names of the same.
    whole: BTreeSet<String>,
    /// Pages of any image that cannot be had.
    damaged: Vec<u64>,
    /// Nobody is told of ends.
    slow: bool,
    /// The host has swapped something out.
    swapped: bool,
}

#[derive(Default)]
struct Served {
    machines: BTreeMap<String, Machine>,
    /// Nobody listens while no daemon is there.
    sink: Option<EventSink>,
    opened: u32,
    /// What the pager for machines to come is made of.
    build: &'static str,
    /// Its number; those of earlier ones are lower.
    current: u32,
}

#[derive(Default)]
struct Machine {
    /// What ends when its VMM does, and the other way round.
    connection: Option<UnixStream>,
    /// Process that it is.
    pid: i32,
    /// Number of the pager that it belongs to.
    pager: u32,
    record: bool,
    hot_pages: Option<HotPages>,
    ready: bool,
    /// What it has touched, until it is ready and after that.
    touched: [Vec<(u64, u64)>; 2],
    failed: Option<String>,
    stats: VmStats,
}

impl FakePagers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap()
    }

    /// Machines that are served, by any pager.
    pub fn served(&self) -> Vec<String> {
        let state = self.lock();
        let names = state
            .images
            .values()
            .flat_map(|image| image.machines.keys());
        names.cloned().collect()
    }

    /// The same for a daemon of another build.
    pub fn of_build(&self, build: &'static str) -> Self {
        Self {
            build,
            ..self.clone()
        }
    }

    /// The same on a host that has come to lack what pagers need.
    pub fn lacking(&self, why: &'static str) -> Self {
        Self {
            lack: Some(why),
            ..self.clone()
        }
    }

    /// Number of the pager that serves `vm`; later ones have higher numbers.
    pub fn pager_of(&self, vm: &str) -> u32 {
        let state = self.lock();
        let mut machines = state.images.values().map(|image| &image.machines);
        machines
            .find_map(|machines| machines.get(vm))
            .unwrap()
            .pager
    }

    /// Images that have a pager.
    pub fn images(&self) -> usize {
        self.lock().images.len()
    }

    /// Times that the pagers of any image were opened.
    pub fn openings(&self) -> u32 {
        self.lock().images.values().map(|image| image.opened).sum()
    }

    /// What a machine was given to fill ahead, and whether it is recorded.
    pub fn order(&self, vm: &str) -> (Option<HotPages>, bool) {
        let state = self.lock();
        let mut machines = state.images.values().map(|image| &image.machines);
        let machine = machines.find_map(|machines| machines.get(vm)).unwrap();
        (machine.hot_pages.clone(), machine.record)
    }

    /// The next machine that is handed over is refused.
    pub fn refuse_next(&self, reason: &str) {
        self.lock().refuse = Some(reason.to_owned());
    }

    /// The memory of `vm` cannot be had. The caller kills it, as pagers do.
    pub fn fail(&self, vm: &str, reason: &str) {
        self.tell(vm, |machine| {
            machine.failed = Some(reason.to_owned());
            Event::Failed {
                vm: vm.to_owned(),
                reason: reason.to_owned(),
            }
        });
    }

    /// The pager of `vm` is lost. The one for machines to come has its machines, or another if it was that itself.
    pub fn lose_pager_of(&self, vm: &str) {
        let mut state = self.lock();
        let mut images = state.images.values_mut();
        let image = images
            .find(|image| image.machines.contains_key(vm))
            .unwrap();
        let lost = image.machines[vm].pager;
        if lost == image.current {
            image.current += 1;
        }
        let mut vms = Vec::new();
        for (vm, machine) in &mut image.machines {
            if machine.pager == lost {
                machine.pager = image.current;
                // A recording with a gap is none.
                machine.record = false;
                // A new pager counts from nothing.
                machine.stats = VmStats {
                    takeovers: machine.stats.takeovers + 1,
                    ..VmStats::default()
                };
                vms.push(vm.clone());
            }
        }
        let took = Duration::from_millis(7);
        // While no daemon is there, nobody takes over.
        image.sink.as_ref().unwrap()(Event::TookOver { vms, took });
    }

    /// A page of every image is damaged from now on. Pagers kill who needs it.
    pub fn damage(&self, page: u64) {
        self.lock().damaged.push(page);
    }

    /// The first pager of an image is lost, if it serves anybody; see [`FakePagers::lose_pager_of`].
    pub fn lose_first(&self, place: &Place) {
        let first = {
            let state = self.lock();
            let machines = &state.images[place.root()].machines;
            let first = machines.iter().min_by_key(|(_, machine)| machine.pager);
            first.map(|(vm, _)| vm.clone())
        };
        if let Some(vm) = first {
            self.lose_pager_of(&vm);
        }
    }

    /// Answers the faults of a machine until it ends, or must.
    fn serve(&self, root: &PathBuf, vm: &str, mut faults: UnixStream) {
        let mut page = [0; 8];
        while faults.read_exact(&mut page).is_ok()
            && self.answer(root, vm, u64::from_le_bytes(page))
        {
            if faults.write_all(&[1]).is_err() {
                return;
            }
        }
    }

    fn answer(&self, root: &PathBuf, vm: &str, page: u64) -> bool {
        let since = Instant::now();
        let mut state = self.lock();
        if state.whole.contains(vm) {
            return true;
        }
        let is_damaged = state.damaged.contains(&page);
        let Some(image) = state.images.get_mut(root) else {
            return false;
        };
        let Some(machine) = image.machines.get_mut(vm) else {
            return false;
        };
        if !is_damaged {
            count_fault(&mut machine.stats, since);
            machine.touched[usize::from(machine.ready)].push((page, 1));
            return true;
        }
        let reason = format!("page {page} of the memory image is damaged");
        machine.failed = Some(reason.clone());
        if let Some(connection) = &machine.connection {
            let _ = connection.shutdown(Shutdown::Both);
        }
        if let Some(sink) = &image.sink {
            let vm = vm.to_owned();
            sink(Event::Failed { vm, reason });
        }
        false
    }

    /// The host begins to swap.
    pub fn swap(&self) {
        self.lock().swapped = true;
    }

    /// While `slow`, no pager says that a machine has ended.
    pub fn be_slow(&self, slow: bool) {
        self.lock().slow = slow;
        self.inner.changed.notify_all();
    }

    fn tell(&self, vm: &str, event: impl FnOnce(&mut Machine) -> Event) {
        let mut state = self.lock();
        let mut images = state.images.values_mut();
        let image = images
            .find(|image| image.machines.contains_key(vm))
            .unwrap();
        let event = event(image.machines.get_mut(vm).unwrap());
        if let Some(sink) = &image.sink {
            sink(event);
        }
    }

    /// All pagers are lost while no daemon keeps what would be needed to go on.
    pub fn lose_all(&self) {
        self.lock().images.clear();
    }

    /// A machine is completed while no daemon is there to hear of it.
    pub fn complete(&self, pid: i32, vm: &str) {
        let mut state = self.lock();
        for image in state.images.values_mut() {
            image.machines.remove(vm);
        }
        state.complete.push(pid.to_string());
    }

    fn ended(&self, root: &PathBuf, vm: &str) {
        let state = self.lock();
        let mut state = self
            .inner
            .changed
            .wait_while(state, |state| state.slow)
            .unwrap();
        if let Some(image) = state.images.get_mut(root)
            && let Some(machine) = image.machines.remove(vm)
            && let Some(sink) = &image.sink
        {
            sink(Event::Gone(named(vm, &machine)));
        }
        self.inner.changed.notify_all();
    }
}

/// Each brings its neighbours along.
fn count_fault(stats: &mut VmStats, since: Instant) {
    stats.faults += 1;
    stats.copied_bytes += 64 << 10;
    stats.latency.add(since.elapsed());
}

fn named(vm: &str, machine: &Machine) -> NamedStats {
    NamedStats {
        vm: vm.to_owned(),
        stats: machine.stats.clone(),
    }
}

impl PagerHost for FakePagers {
    fn open(&self, place: &Place, on_event: EventSink) -> Result<Box<dyn ImagePager>, PagerError> {
        // As a real one it needs the image and its place.
        Image::open(&place.image())?;
        std::fs::metadata(place.run()).map_err(|_| lost("it has no place"))?;
        let mut state = self.lock();
        let image = state.images.entry(place.root().to_owned()).or_default();
        for (vm, machine) in &image.machines {
            if let Some(reason) = &machine.failed {
                on_event(Event::Failed {
                    vm: vm.clone(),
                    reason: reason.clone(),
                });
            }
        }
        image.sink = Some(on_event);
        image.opened += 1;
        if image.build != self.build && !image.machines.is_empty() {
            image.current += 1;
        }
        image.build = self.build;
        Ok(Box::new(FakePager {
            pagers: self.clone(),
            root: place.root().to_owned(),
        }))
    }

    fn unusable(&self) -> Option<String> {
        self.lack.map(str::to_owned)
    }

    fn is_complete(&self, pid: i32) -> std::io::Result<bool> {
        Ok(self.lock().complete.contains(&pid.to_string()))
    }

    fn has_swapped(&self) -> std::io::Result<bool> {
        Ok(self.lock().swapped)
    }
}

struct FakePager {
    pagers: FakePagers,
    root: PathBuf,
}

impl Drop for FakePager {
    fn drop(&mut self) {
        let mut state = self.pagers.lock();
        if let Some(image) = state.images.get_mut(&self.root) {
            image.sink = None;
            if image.machines.is_empty() {
                state.images.remove(&self.root);
            }
        }
        self.pagers.inner.changed.notify_all();
    }
}

impl FakePager {
    fn with<T>(&self, vm: &str, work: impl FnOnce(&mut Machine) -> T) -> Result<T, PagerError> {
        let mut state = self.pagers.lock();
        let image = state.images.get_mut(&self.root);
        let machine = image.and_then(|image| image.machines.get_mut(vm));
        machine.map(work).ok_or_else(|| PagerError::Refused {
            reason: format!("no machine {vm} is served here"),
        })
    }
}

impl ImagePager for FakePager {
    fn attach(&self, attach: Attach<'_>) -> Result<(), PagerError> {
        let limit = Timespec {
            tv_sec: i64::try_from(attach.limit.as_secs()).unwrap(),
            tv_nsec: 0,
        };
        let ready = poll(
            &mut [PollFd::new(attach.listener, PollFlags::IN)],
            Some(&limit),
        );
        assert!(ready.unwrap() > 0, "nobody came");
        let accepted = attach.listener.accept();
        let (mut connection, _) = accepted.map_err(|source| PagerError::Io {
            action: "accept the VMM's connection",
            source,
        })?;
        let since = Instant::now();
        let peer = rustix::net::sockopt::socket_peercred(&connection).unwrap();
        let mut faults = UnixStream::from(receive(&connection));
        if let Some(reason) = self.pagers.lock().refuse.take() {
            return Err(PagerError::Refused { reason });
        }
        let hot_pages = attach.hot_pages.as_ref().map(HotPages::page_count);
        let mut stats = VmStats {
            ahead_bytes: hot_pages.unwrap_or(0) * PAGE_BYTES as u64,
            ..VmStats::default()
        };
        count_fault(&mut stats, since);
        let machine = Machine {
            connection: Some(connection.try_clone().unwrap()),
            pid: peer.pid.as_raw_nonzero().get(),
            touched: [vec![TOUCHED], Vec::new()],
            record: attach.record,
            stats,
            hot_pages: attach.hot_pages,
            ..Machine::default()
        };
        let vm = attach.vm;
        let mut state = self.pagers.lock();
        let image = state
            .images
            .get_mut(&self.root)
            .ok_or_else(|| lost("it was lost"))?;
        if image.machines.contains_key(&vm) {
            let _ = connection.shutdown(Shutdown::Both);
            return Err(PagerError::Handshake {
                what: format!("machine {vm} is served already"),
            });
        }
        let pager = image.current;
        image
            .machines
            .insert(vm.clone(), Machine { pager, ..machine });
        drop(state);
        faults.write_all(&[1]).unwrap();
        let (pagers, root, name) = (self.pagers.clone(), self.root.clone(), vm.clone());
        std::thread::spawn(move || pagers.serve(&root, &name, faults));
        let (pagers, root) = (self.pagers.clone(), self.root.clone());
        std::thread::spawn(move || {
            // Ends when the VMM does.
            let _ = connection.read(&mut [0]);
            pagers.ended(&root, &vm);
        });
        Ok(())
    }

    fn vms(&self) -> Result<Vec<String>, PagerError> {
        let state = self.pagers.lock();
        let image = state.images.get(&self.root);
        Ok(image.map_or(Vec::new(), |image| image.machines.keys().cloned().collect()))
    }

    fn stats(&self) -> Result<Vec<NamedStats>, PagerError> {
        let state = self.pagers.lock();
        let machines = state.images.get(&self.root).map(|image| &image.machines);
        let machines = machines.into_iter().flatten();
        Ok(machines.map(|(vm, machine)| named(vm, machine)).collect())
    }

    fn mark(&self, vm: &str, mark: Mark) -> Result<Option<HotPages>, PagerError> {
        self.with(vm, |machine| match mark {
            Mark::Ready => {
                machine.ready = true;
                None
            }
            Mark::FirstExec if machine.record => {
                machine.record = false;
                let [ready, exec] = machine.touched.clone();
                Some(HotPages {
                    recordings: 1,
                    ready,
                    exec,
                })
            }
            Mark::FirstExec => None,
        })
    }

    fn graduate(&self, vm: &str, bytes_per_second: u64) -> Result<(), PagerError> {
        assert!(bytes_per_second > 0);
        self.with(vm, |_| ())?;
        let mut state = self.pagers.lock();
        if let Some(image) = state.images.get_mut(&self.root)
            && let Some(machine) = image.machines.remove(vm)
        {
            let pid = machine.pid.to_string();
            if let Some(sink) = &image.sink {
                sink(Event::Graduated(named(vm, &machine)));
            }
            state.complete.push(pid);
            state.whole.insert(vm.to_owned());
        }
        self.pagers.inner.changed.notify_all();
        Ok(())
    }
}

fn lost(what: &str) -> PagerError {
    PagerError::Lost {
        what: what.to_owned(),
    }
}

/// The descriptor that comes with the VMM's message.
fn receive(connection: &UnixStream) -> OwnedFd {
    let mut text = [0; 256];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    rustix::net::recvmsg(
        connection,
        &mut [IoSliceMut::new(&mut text)],
        &mut control,
        flags,
    )
    .unwrap();
    let found = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    found.unwrap()
}
