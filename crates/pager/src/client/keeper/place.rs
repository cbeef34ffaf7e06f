//! Giving machines to pagers, replacing pagers, and killing what cannot be placed.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::process::Signal as ProcessSignal;

use super::{Keeper, Machine, Signal};
use crate::client::attach::{Handover, is_ready};
use crate::client::pager::Pager;
use crate::client::{Event, PagerError};
use crate::control::{NamedStats, PagerEvent, Registration, Request};
use crate::hot::HotPages;
use crate::state;

/// Pagers tried in a row for a machine.
const PLACING_TRIES: u32 = 3;

impl Keeper {
    pub(super) fn attach(
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
        let placed = self.place(&vm, None);
        if placed.is_err() {
            self.end(&vm);
        }
        placed
    }

    /// Gives a machine to a pager that is there or can be started, trying a few, and none after `until`.
    pub(super) fn place(&mut self, vm: &str, until: Option<Instant>) -> Result<(), PagerError> {
        let mut tries = 0;
        loop {
            tries += 1;
            self.in_time(until)?;
            let number = match self.current(until) {
                Ok(number) => number,
                Err(error) => return self.in_time(until).and(Err(error)),
            };
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

    /// Whether there is time left for a takeover.
    fn in_time(&self, until: Option<Instant>) -> Result<(), PagerError> {
        match until {
            Some(until) if Instant::now() >= until => Err(PagerError::Deadline {
                what: "another pager",
                limit: self.config.limits.takeover,
            }),
            _ => Ok(()),
        }
    }

    /// Has the time of any request, however little is left of a takeover's: a pager that is given less would be
    /// taken for lost, with all machines that it has just got.
    fn register(&mut self, number: u32, vm: &str) -> Result<(), PagerError> {
        let limit = self.config.limits.answer;
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
        pager.link.request(request, &fds, limit)?;
        machine.pager = Some(number);
        Ok(())
    }

    /// The pager for machines to come, started if there is none; by `until`, where that is said.
    pub(super) fn current(&mut self, until: Option<Instant>) -> Result<u32, PagerError> {
        if let Some(number) = self.current {
            return Ok(number);
        }
        let number = self.next_number;
        self.next_number += 1;
        let limit = within(self.config.limits.start, until);
        let pager = Pager::start(&self.config, number, limit, self.reporter(number))?;
        self.pagers.insert(number, pager);
        self.current = Some(number);
        Ok(number)
    }

    pub(super) fn reporter(&self, number: u32) -> impl Fn(Option<PagerEvent>) + Send + 'static {
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
    pub(super) fn replace(&mut self, number: u32, why: &str) {
        let Some(pager) = self.pagers.remove(&number) else {
            return;
        };
        let started = Instant::now();
        let until = Some(started + self.config.limits.takeover);
        if self.current == Some(number) {
            self.current = None;
        }
        let is_its_own = |machine: &&mut Machine| machine.pager == Some(number);
        let mut lost = Vec::new();
        for machine in self.machines.values_mut().filter(is_its_own) {
            machine.pager = None;
            // One that has ended with its pager, or before it, needs no other; that it is gone is noticed next.
            let has_ended = is_ready(&machine.process, Duration::ZERO).unwrap_or(false);
            if !machine.failed && !has_ended {
                machine.registration.takeovers += 1;
                // What was hot is needed by now or has been filled; a recording with a gap is none.
                machine.registration.hot_pages = None;
                machine.registration.record = false;
                lost.push(machine.registration.vm.clone());
            }
        }
        let pid = pager.pid;
        if let Err(error) = pager.kill(within(self.config.limits.answer, until)) {
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
        lost.retain(|vm| match self.place(vm, until) {
            Ok(()) => true,
            Err(error) => {
                let reason = format!("the pager of its memory cannot be replaced: {error}");
                self.fail(vm, &reason);
                false
            }
        });
        if !lost.is_empty() {
            (self.on_event)(Event::TookOver {
                vms: lost,
                took: started.elapsed(),
            });
        }
    }

    fn may_restart(&mut self, now: Instant) -> bool {
        let window = self.config.limits.restart_window;
        self.restarts
            .retain(|time| now.duration_since(*time) < window);
        self.restarts.push_back(now);
        self.restarts.len() <= self.config.limits.restarts as usize
    }

    /// The machine's connection has ended, and so has its process, as a rule. A VMM can close its connection and live
    /// on; without anybody to serve it, it must not.
    pub(super) fn gone(&mut self, stats: NamedStats) {
        if self.end(&stats.vm) {
            (self.on_event)(Event::Gone(stats));
        }
    }

    /// Kills a machine and forgets it when its process has ended, not before: its descriptors stay until then. One
    /// that takes its time for that is looked for later; false then.
    fn end(&mut self, vm: &str) -> bool {
        let Some(machine) = self.machines.get_mut(vm) else {
            return true;
        };
        let ended = kill_and_wait(&machine.process, self.config.limits.answer);
        if ended {
            self.machines.remove(vm);
        } else {
            machine.pager = None;
            machine.failed = true;
        }
        ended
    }

    /// Kills a machine and says why, once. Its descriptors stay until its process has ended.
    pub(super) fn fail(&mut self, vm: &str, reason: &str) {
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
}

/// How long something may take that may take `limit`, but no longer than `until`.
fn within(limit: Duration, until: Option<Instant>) -> Duration {
    until.map_or(limit, |until| {
        limit.min(until.saturating_duration_since(Instant::now()))
    })
}

fn kill(process: &OwnedFd) {
    match rustix::process::pidfd_send_signal(process, ProcessSignal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => tracing::error!(%error, "a machine that must end cannot be killed"),
    }
}

/// Whether it has ended within `limit`.
fn kill_and_wait(process: &OwnedFd, limit: Duration) -> bool {
    kill(process);
    let ended = is_ready(process, limit).unwrap_or(false);
    if !ended {
        tracing::error!("a machine that was killed has not ended");
    }
    ended
}
