//! The supervisor's thread: owns pagers and machines; everything that happens is a signal.
//!
//! Each machine belongs to one pager. When that is lost, it is first made sure that its process is gone (two that
//! read the same events would each miss some), then the machines go to another, which wakes their threads. What
//! cannot be placed is killed. A machine's descriptors are dropped only when its process has ended or is complete:
//! closing the last duplicate of a userfaultfd turns waiting faults into zero pages.

mod find;
mod place;
mod upgrade;

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use memory::{Image, PAGE_BYTES};

use super::attach::{Handover, is_ready};
use super::link::Answer as Answered;
use super::pager::Pager;
use super::{Config, Event, PagerError};
use crate::control::{NamedStats, PagerEvent, Registration, Reply, Request};
use crate::hot::HotPages;
use crate::stats::VmStats;

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
    /// Something about one machine, for the pager that serves it.
    Ask {
        vm: String,
        request: Request,
        answer: Answer<Reply>,
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

    /// Takes over the pagers that are found in the run directory. One that cannot be had is left out with the
    /// machines that were not got from it: who misses them here ends them. It must not keep the image from all others.
    pub(super) fn find_pagers(&mut self) -> Result<(), PagerError> {
        let sockets =
            Pager::sockets(&self.config.run_dir).map_err(PagerError::io("look for pagers"))?;
        for (number, socket) in sockets {
            self.next_number = self.next_number.max(number + 1);
            if let Err(error) = self.find(number, &socket) {
                tracing::warn!(socket = %socket.display(), %error, "a pager cannot be taken over");
            }
        }
        self.drain_all_but_current();
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
            Command::Ready(answer) => drop(answer.send(self.current(None).map(drop))),
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
            Command::Ask {
                vm,
                request,
                answer,
            } => drop(answer.send(self.ask(&vm, request))),
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
            PagerEvent::Gone(stats) if is_its_own(&stats.vm) => self.gone(stats),
            PagerEvent::Graduated(stats) if is_its_own(&stats.vm) => {
                self.machines.remove(&stats.vm);
                (self.on_event)(Event::Graduated(stats));
            }
            PagerEvent::Failed { .. } | PagerEvent::Gone(_) | PagerEvent::Graduated(_) => {}
        }
    }

    fn stats(&mut self) -> Result<Vec<NamedStats>, PagerError> {
        let limit = self.config.limits.answer;
        let mut all = Vec::new();
        for pager in self.pagers.values_mut() {
            match pager.link.request(Request::Stats, &[], limit) {
                Ok(Answered { reply, .. }) => {
                    if let Reply::Stats(stats) = reply {
                        all.extend(stats);
                    }
                }
                // One that drained has just ended, and has no machines any more; one that was lost is replaced next.
                Err(PagerError::Lost { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    fn ask(&mut self, vm: &str, request: Request) -> Result<Reply, PagerError> {
        let refused = || PagerError::Refused {
            reason: format!("no machine {vm} is served here"),
        };
        let machine = self.machines.get_mut(vm).ok_or_else(refused)?;
        let number = machine.pager.ok_or_else(refused)?;
        let pager = self.pagers.get_mut(&number).ok_or_else(refused)?;
        let rate = match &request {
            Request::Graduate {
                bytes_per_second, ..
            } => Some(*bytes_per_second),
            _ => None,
        };
        let answer = pager
            .link
            .request(request, &[], self.config.limits.answer)?;
        // The next pager goes on with it.
        machine.registration.graduate = rate.or(machine.registration.graduate);
        Ok(answer.reply)
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
