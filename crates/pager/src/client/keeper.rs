//! The supervisor's thread: owns pagers and machines; everything that happens is a signal.
//!
//! Each machine belongs to one pager. When that is lost, it is first made sure that its process is gone (two that
//! read the same events would each miss some), then the machines go to another, which wakes their threads. What
//! cannot be placed is killed. A machine's descriptors are dropped only when its process has ended or is complete:
//! closing the last duplicate of a userfaultfd turns waiting faults into zero pages.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use memory::{Image, PAGE_BYTES};
use rustix::process::Signal as ProcessSignal;

use super::attach::{Handover, identify, is_ready};
use super::pager::Pager;
use super::{Config, Event, PagerError};
use crate::control::{NamedStats, PagerEvent, Registration, Reply, Request};
use crate::hot::{HotPages, Mark};
use crate::state;
use crate::stats::VmStats;

/// Pagers tried in a row for the machines of a lost one.
const PLACING_TRIES: u32 = 3;

/// Where an answer goes.
type Answer<T> = SyncSender<Result<T, PagerError>>;

/// What the daemon wants.
pub(super) enum Command {
    Ready(Answer<()>),
    Attach {
        vm: String,
        handover: Handover,
        hot_pages: Option<HotPages>,
        record: bool,
        answer: Answer<()>,
    },
    Vms(Answer<Vec<String>>),
    Stats(Answer<Vec<NamedStats>>),
    Mark {
        vm: String,
        mark: Mark,
        answer: Answer<Option<HotPages>>,
    },
    Prefetch {
        vm: String,
        hot_pages: HotPages,
        answer: Answer<()>,
    },
    Graduate {
        vm: String,
        bytes_per_second: u64,
        answer: Answer<()>,
    },
    Upgrade(Answer<()>),
    Pids(Answer<Vec<i32>>),
}

/// Everything that wakes the keeper.
pub(super) enum Signal {
    Command(Command),
    /// A pager has said something.
    Said(u32, PagerEvent),
    /// A pager's connection has ended.
    Lost(u32),
    Stop,
}

/// A machine and what another pager needs to serve it.
struct Machine {
    registration: Registration,
    uffd: OwnedFd,
    connection: OwnedFd,
    state: OwnedFd,
    process: OwnedFd,
    /// Whom it belongs to; nobody serves a machine that was given up when its pager was lost.
    pager: Option<u32>,
    failed: bool,
}

/// See the module.
pub(super) struct Keeper {
    config: Config,
    image_id: String,
    ram_pages: u64,
    signals: SyncSender<Signal>,
    on_event: Box<dyn Fn(Event) + Send>,
    pagers: BTreeMap<u32, Pager>,
    current: Option<u32>,
    next_number: u32,
    machines: BTreeMap<String, Machine>,
    /// Times of the last restarts.
    restarts: VecDeque<Instant>,
}

impl Keeper {
    pub(super) fn new(
        config: Config,
        image: &Image,
        signals: SyncSender<Signal>,
        on_event: Box<dyn Fn(Event) + Send>,
    ) -> Self {
        let manifest = image.manifest();
        Self {
            config,
            image_id: manifest.image_id.to_string(),
            ram_pages: manifest.machine.ram_bytes / PAGE_BYTES as u64,
            signals,
            on_event,
            pagers: BTreeMap::new(),
            current: None,
            next_number: 1,
            machines: BTreeMap::new(),
            restarts: VecDeque::new(),
        }
    }

    /// Takes over the pagers that are found in the run directory.
    pub(super) fn find_pagers(&mut self) -> Result<(), PagerError> {
        let sockets =
            Pager::sockets(&self.config.run_dir).map_err(PagerError::io("look for pagers"))?;
        for (number, socket) in sockets {
            self.next_number = self.next_number.max(number + 1);
            let report = self.reporter(number);
            let Some((pager, hello)) = Pager::find(&self.config, &socket, report)? else {
                continue;
            };
            if hello.image_id != self.image_id {
                return Err(PagerError::lost(format!(
                    "the one at {} serves image {}",
                    socket.display(),
                    hello.image_id
                )));
            }
            self.pagers.insert(number, pager);
            if !hello.draining {
                self.current = Some(number);
            }
            for served in hello.vms {
                self.adopt(number, &served.vm)?;
                if let Some(reason) = served.failed {
                    self.fail(&served.vm, &reason);
                }
            }
        }
        Ok(())
    }

    /// Works until it is told to stop.
    pub(super) fn run(mut self, inbox: &Receiver<Signal>) {
        let mut last_look = Instant::now();
        loop {
            match inbox.recv_timeout(self.config.limits.ping_every) {
                Ok(Signal::Command(command)) => self.obey(command),
                Ok(Signal::Said(number, event)) => self.hear(number, event),
                Ok(Signal::Lost(number)) => self.replace(number, "it has ended"),
                Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if last_look.elapsed() >= self.config.limits.ping_every {
                self.look_after();
                last_look = Instant::now();
            }
        }
        self.stop();
    }

    /// Lets pagers without machines end.
    fn stop(&mut self) {
        let limit = self.config.limits.answer;
        for (number, mut pager) in std::mem::take(&mut self.pagers) {
            let serves = |machine: &Machine| machine.pager == Some(number);
            if !self.machines.values().any(serves)
                && pager.link.request(Request::Drain, &[], limit).is_ok()
            {
                pager.retire(limit);
            }
        }
    }

    fn obey(&mut self, command: Command) {
        // Whoever does not wait any more for an answer does not need it.
        match command {
            Command::Ready(answer) => drop(answer.send(self.current().map(drop))),
            Command::Attach {
                vm,
                handover,
                hot_pages,
                record,
                answer,
            } => {
                let attached = self.attach(vm, handover, hot_pages, record);
                drop(answer.send(attached));
            }
            Command::Vms(answer) => {
                drop(answer.send(Ok(self.machines.keys().cloned().collect())));
            }
            Command::Stats(answer) => drop(answer.send(self.stats())),
            Command::Mark { vm, mark, answer } => {
                let request = Request::Mark {
                    vm: vm.clone(),
                    mark,
                };
                let recorded = self.ask(&vm, request).map(|reply| match reply {
                    Reply::Recorded(recorded) => recorded,
                    _ => None,
                });
                drop(answer.send(recorded));
            }
            Command::Prefetch {
                vm,
                hot_pages,
                answer,
            } => {
                let request = Request::Prefetch {
                    vm: vm.clone(),
                    hot_pages,
                };
                drop(answer.send(self.ask(&vm, request).map(drop)));
            }
            Command::Graduate {
                vm,
                bytes_per_second,
                answer,
            } => {
                let request = Request::Graduate {
                    vm: vm.clone(),
                    bytes_per_second,
                };
                let asked = self.ask(&vm, request).map(drop);
                if asked.is_ok()
                    && let Some(machine) = self.machines.get_mut(&vm)
                {
                    // The next pager goes on with it.
                    machine.registration.graduate = Some(bytes_per_second);
                }
                drop(answer.send(asked));
            }
            Command::Upgrade(answer) => drop(answer.send(self.upgrade())),
            Command::Pids(answer) => {
                let current = self.current;
                let mut pagers: Vec<_> = self.pagers.iter().collect();
                pagers.sort_by_key(|(number, _)| Some(**number) == current);
                let pids = pagers.into_iter().map(|(_, pager)| pager.pid).collect();
                drop(answer.send(Ok(pids)));
            }
        }
    }

    fn hear(&mut self, number: u32, event: PagerEvent) {
        // What a pager says of a machine that is no longer its own is old.
        let is_its_own = |vm: &str| {
            self.machines
                .get(vm)
                .is_some_and(|machine| machine.pager == Some(number))
        };
        match event {
            PagerEvent::Failed { vm, reason } if is_its_own(&vm) => self.fail(&vm, &reason),
            PagerEvent::Gone(stats) if is_its_own(&stats.vm) => {
                self.machines.remove(&stats.vm);
                (self.on_event)(Event::Gone(stats));
            }
            PagerEvent::Graduated(stats) if is_its_own(&stats.vm) => {
                self.machines.remove(&stats.vm);
                (self.on_event)(Event::Graduated(stats));
            }
            PagerEvent::Failed { .. } | PagerEvent::Gone(_) | PagerEvent::Graduated(_) => {}
        }
    }

    fn attach(
        &mut self,
        vm: String,
        handover: Handover,
        hot_pages: Option<HotPages>,
        record: bool,
    ) -> Result<(), PagerError> {
        if self.machines.contains_key(&vm) {
            kill_and_wait(&handover.process, self.config.limits.answer);
            return Err(PagerError::Handshake {
                what: format!("machine {vm} is served already"),
            });
        }
        let state = state::create(self.ram_pages).map_err(PagerError::io("make page state"));
        let state = state.inspect_err(|_| {
            kill_and_wait(&handover.process, self.config.limits.answer);
        })?;
        let machine = Machine {
            registration: Registration {
                vm: vm.clone(),
                handshake: handover.text,
                hot_pages,
                record,
                takeovers: 0,
                graduate: None,
            },
            uffd: handover.uffd,
            connection: handover.connection,
            state,
            process: handover.process,
            pager: None,
            failed: false,
        };
        self.machines.insert(vm.clone(), machine);
        let placed = self.place(&vm);
        if placed.is_err()
            && let Some(machine) = self.machines.remove(&vm)
        {
            kill_and_wait(&machine.process, self.config.limits.answer);
        }
        placed
    }

    /// Gives a machine to a pager that is there or can be started, trying a few.
    fn place(&mut self, vm: &str) -> Result<(), PagerError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let number = self.current()?;
            let error = match self.register(number, vm) {
                Err(error)
                    if tries < PLACING_TRIES && !matches!(error, PagerError::Refused { .. }) =>
                {
                    error
                }
                registered => return registered,
            };
            // Its other machines are placed anew; this one is not among them, for it belongs to nobody yet.
            self.replace(number, &error.to_string());
        }
    }

    fn register(&mut self, number: u32, vm: &str) -> Result<(), PagerError> {
        let (Some(pager), Some(machine)) =
            (self.pagers.get_mut(&number), self.machines.get_mut(vm))
        else {
            return Err(PagerError::lost("it was given up"));
        };
        let fds = [
            machine.uffd.as_fd(),
            machine.connection.as_fd(),
            machine.state.as_fd(),
        ];
        let request = Request::Register(machine.registration.clone());
        pager
            .link
            .request(request, &fds, self.config.limits.answer)?;
        machine.pager = Some(number);
        Ok(())
    }

    fn adopt(&mut self, number: u32, vm: &str) -> Result<(), PagerError> {
        let Some(pager) = self.pagers.get_mut(&number) else {
            return Err(PagerError::lost("it was given up"));
        };
        let request = Request::Adopt { vm: vm.to_owned() };
        let answer = pager
            .link
            .request(request, &[], self.config.limits.answer)?;
        let (Reply::Adopted(registration), Some([uffd, connection, state])) =
            (answer.reply, answer.fds)
        else {
            return Err(PagerError::lost("it keeps its machines to itself"));
        };
        let process = identify(&connection, None)?;
        let machine = Machine {
            registration,
            uffd,
            connection,
            state,
            process,
            pager: Some(number),
            failed: false,
        };
        self.machines.insert(vm.to_owned(), machine);
        Ok(())
    }

    /// The pager for machines to come, started if there is none.
    fn current(&mut self) -> Result<u32, PagerError> {
        if let Some(number) = self.current {
            return Ok(number);
        }
        let number = self.next_number;
        self.next_number += 1;
        let pager = Pager::start(&self.config, number, self.reporter(number))?;
        self.pagers.insert(number, pager);
        self.current = Some(number);
        Ok(number)
    }

    fn reporter(&self, number: u32) -> impl Fn(Option<PagerEvent>) + Send + 'static {
        let signals = self.signals.clone();
        move |event| {
            let signal = match event {
                Some(event) => Signal::Said(number, event),
                None => Signal::Lost(number),
            };
            // A full queue means that the keeper is stuck; it asks each pager again by itself.
            drop(signals.try_send(signal));
        }
    }

    /// Ends a pager that is lost or silent, and gives its machines to another.
    fn replace(&mut self, number: u32, why: &str) {
        let Some(pager) = self.pagers.remove(&number) else {
            return;
        };
        let started = Instant::now();
        if self.current == Some(number) {
            self.current = None;
        }
        let is_its_own = |machine: &&mut Machine| machine.pager == Some(number);
        let mut lost = Vec::new();
        for machine in self.machines.values_mut().filter(is_its_own) {
            machine.pager = None;
            if !machine.failed {
                machine.registration.takeovers += 1;
                // What was hot is needed by now or has been filled; a recording with a gap is none.
                machine.registration.hot_pages = None;
                machine.registration.record = false;
                lost.push(machine.registration.vm.clone());
            }
        }
        let pid = pager.pid;
        if let Err(error) = pager.kill(self.config.limits.answer) {
            for vm in &lost {
                self.fail(
                    vm,
                    &format!("the pager of its memory cannot be replaced: {error}"),
                );
            }
            return;
        }
        if lost.is_empty() {
            return;
        }
        tracing::warn!(pid, why, vms = lost.len(), "a pager is replaced");
        if !self.may_restart(started) {
            let limit = self.config.limits;
            let reason = format!(
                "the pager of its memory was lost {} times within {} s",
                limit.restarts + 1,
                limit.restart_window.as_secs()
            );
            lost.iter().for_each(|vm| self.fail(vm, &reason));
            return;
        }
        let mut placed = 0;
        for vm in &lost {
            match self.place(vm) {
                Ok(()) => placed += 1,
                Err(error) => {
                    self.fail(
                        vm,
                        &format!("the pager of its memory cannot be replaced: {error}"),
                    );
                }
            }
        }
        (self.on_event)(Event::TookOver {
            vms: placed,
            took: started.elapsed(),
        });
    }

    fn may_restart(&mut self, now: Instant) -> bool {
        let window = self.config.limits.restart_window;
        self.restarts
            .retain(|time| now.duration_since(*time) < window);
        self.restarts.push_back(now);
        self.restarts.len() <= self.config.limits.restarts as usize
    }

    /// Kills a machine and says why, once. Its descriptors stay until its process has ended.
    fn fail(&mut self, vm: &str, reason: &str) {
        let Some(machine) = self.machines.get_mut(vm) else {
            return;
        };
        if std::mem::replace(&mut machine.failed, true) {
            return;
        }
        kill(&machine.process);
        (self.on_event)(Event::Failed {
            vm: vm.to_owned(),
            reason: reason.to_owned(),
        });
    }

    fn stats(&mut self) -> Result<Vec<NamedStats>, PagerError> {
        let limit = self.config.limits.answer;
        let mut all = Vec::new();
        for pager in self.pagers.values_mut() {
            if let Reply::Stats(stats) = pager.link.request(Request::Stats, &[], limit)?.reply {
                all.extend(stats);
            }
        }
        Ok(all)
    }

    fn ask(&mut self, vm: &str, request: Request) -> Result<Reply, PagerError> {
        let number = self.machines.get(vm).and_then(|machine| machine.pager);
        let pager = number.and_then(|number| self.pagers.get_mut(&number));
        let Some(pager) = pager else {
            return Err(PagerError::Refused {
                reason: format!("no machine {vm} is served here"),
            });
        };
        let answer = pager
            .link
            .request(request, &[], self.config.limits.answer)?;
        Ok(answer.reply)
    }

    fn upgrade(&mut self) -> Result<(), PagerError> {
        let old = self.current.take();
        if let Err(error) = self.current() {
            self.current = old;
            return Err(error);
        }
        if let Some(pager) = old.and_then(|number| self.pagers.get_mut(&number)) {
            pager.draining = true;
            pager
                .link
                .request(Request::Drain, &[], self.config.limits.answer)?;
        }
        Ok(())
    }

    /// Looks whether pagers are alive, and whether machines that nobody serves have ended.
    fn look_after(&mut self) {
        let numbers: Vec<u32> = self.pagers.keys().copied().collect();
        for number in numbers {
            let Some(pager) = self.pagers.get_mut(&number) else {
                continue;
            };
            let limit = self.config.limits.silence;
            // A lost one, or one that drained, is dealt with when its end is signalled, which may be later in the queue.
            if let Err(error) = pager.link.request(Request::Ping, &[], limit) {
                self.replace(number, &error.to_string());
            }
        }
        let has_ended = |machine: &Machine| {
            machine.pager.is_none() && is_ready(&machine.process, Duration::ZERO).unwrap_or(false)
        };
        let ended: Vec<String> = self
            .machines
            .iter()
            .filter(|(_, machine)| has_ended(machine))
            .map(|(vm, _)| vm.clone())
            .collect();
        for vm in ended {
            self.machines.remove(&vm);
            (self.on_event)(Event::Gone(NamedStats {
                vm,
                stats: VmStats::default(),
            }));
        }
    }
}

fn kill(process: &OwnedFd) {
    match rustix::process::pidfd_send_signal(process, ProcessSignal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => tracing::error!(%error, "a machine that must end cannot be killed"),
    }
}

fn kill_and_wait(process: &OwnedFd, limit: Duration) {
    kill(process);
    if !is_ready(process, limit).unwrap_or(false) {
        tracing::error!("a machine that was killed has not ended");
    }
}
