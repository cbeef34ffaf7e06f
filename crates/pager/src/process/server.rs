//! The loop: one thread, all machines of one image.
//!
//! Faults of all machines come first, a few of each in turn, so that one with many cannot starve the others; then
//! what is filled ahead, one piece at a time. The server ends when it serves nobody and no daemon is connected, or
//! when it drains and the last machine is gone.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use memory::{ImageId, PAGE_BYTES};

use super::connection::Connection;
use super::machine::{Machine, Standing};
use super::poller::{Interest, Poller, Token};
use crate::ahead::Due;
use crate::control::{PagerEvent, Served as Told};
use crate::layout::Layout;
use crate::plan::Batches;
use crate::process::Settings;
use crate::source::LayerFiles;
use crate::vm::{Failure, Served};

/// Faults of one machine before the next one's turn.
const FAULTS_PER_TURN: usize = 4;
/// Faults of all machines before requests are looked at again. After a takeover machines are handed over one by one
/// while those before them wait for pages; if each had to wait for a round of all others, the last would come too late.
const FAULTS_PER_ROUND: usize = 16;
/// Machines of one pager; limited by descriptors.
pub(super) const MAX_MACHINES: usize = 2048;
/// A pager without machines and daemon waits this long for a daemon that restarts.
const IDLE_LIMIT: Duration = Duration::from_secs(10);
/// One that has given machines up while no daemon was there waits longer, to say why they ended.
const UNHEARD_LIMIT: Duration = Duration::from_secs(600);
/// Most of these that it remembers.
const MAX_UNHEARD: usize = 256;
/// Events of a complete machine are read for this long: one that was under way when it was let go waits for that.
const LINGER: Duration = Duration::from_secs(2);
/// Between tries when memory cannot be filled at the moment.
const RETRY_AFTER: Duration = Duration::from_millis(1);

/// The state of a pager.
pub(super) struct Server {
    pub(super) poller: Poller,
    pub(super) listener: OwnedFd,
    pub(super) owner_uid: u32,
    pub(super) image_id: ImageId,
    source: LayerFiles,
    pub(super) layout: Arc<Layout>,
    pub(super) batches: Batches,
    ahead_pages: u64,
    pub(super) machines: BTreeMap<u32, Machine>,
    pub(super) connections: BTreeMap<u32, Connection>,
    next_key: u32,
    /// Whose turn is next, of those with faults and of those to be filled ahead.
    turn: u32,
    ahead_turn: u32,
    pub(super) draining: bool,
    /// Machines that were given up while no daemon was there.
    pub(super) unheard: Vec<Told>,
    idle_since: Option<Instant>,
}

impl Server {
    pub(super) fn new(
        listener: OwnedFd,
        owner_uid: u32,
        image_id: ImageId,
        (source, layout): (LayerFiles, Layout),
        settings: Settings,
    ) -> io::Result<Self> {
        let poller = Poller::new()?;
        rustix::io::ioctl_fionbio(&listener, true)?;
        poller.add(&listener, Token::Listener)?;
        let page = PAGE_BYTES as u64;
        Ok(Self {
            poller,
            listener,
            owner_uid,
            image_id,
            source,
            layout: Arc::new(layout),
            batches: Batches {
                fault_pages: settings.batch_bytes / page,
                zero_pages: settings.zero_batch_bytes / page,
            },
            ahead_pages: settings.ahead_bytes / page,
            machines: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_key: 0,
            turn: 0,
            ahead_turn: 0,
            draining: false,
            unheard: Vec::new(),
            idle_since: None,
        })
    }

    /// Serves until there is nothing to serve.
    pub(super) fn run(&mut self) -> io::Result<()> {
        loop {
            let tokens = self.poller.wait(self.timeout(Instant::now()))?;
            let now = Instant::now();
            for token in tokens {
                self.handle(token, now);
            }
            if !self.serve_faults() {
                self.serve_ahead();
            }
            self.end_complete(now);
            self.flush();
            if self.is_done(now) {
                return Ok(());
            }
        }
    }

    /// A number that no machine and no connection has.
    pub(super) fn new_key(&mut self) -> u32 {
        loop {
            self.next_key = self.next_key.wrapping_add(1);
            let key = self.next_key;
            if !self.machines.contains_key(&key) && !self.connections.contains_key(&key) {
                return key;
            }
        }
    }

    /// Gives a machine up: none of its faults is answered with bytes from now on.
    pub(super) fn fail(&mut self, key: u32, failure: &Failure) {
        let Some(machine) = self.machines.get_mut(&key) else {
            return;
        };
        let reason = failure.to_string();
        let vm = machine.name().to_owned();
        tracing::error!(vm, reason, "machine given up");
        machine.standing = Standing::Failed(reason.clone());
        let is_heard = self.connections.values().any(|daemon| daemon.greeted);
        if !is_heard && self.unheard.len() < MAX_UNHEARD {
            let (vm, failed) = (vm.clone(), Some(reason.clone()));
            self.unheard.push(Told { vm, failed });
        }
        // The daemon is told first: it kills the machine for the reason that is true.
        self.announce(&PagerEvent::Failed { vm, reason });
        self.flush();
        self.refuse_faults(key);
    }

    fn refuse_faults(&mut self, key: u32) {
        if let Some(machine) = self.machines.get_mut(&key)
            && !machine.refuse_faults()
        {
            // Before Linux 6.6 the threads stay where they are until the daemon has killed their process.
            self.poller.remove(&machine.uffd);
        }
    }

    fn handle(&mut self, token: Token, now: Instant) {
        match token {
            Token::Listener => self.accept(),
            Token::Control(key) => self.read_control(key),
            Token::Faults(key) => {
                let Some(machine) = self.machines.get_mut(&key) else {
                    return;
                };
                let read = machine.read(now);
                match (&machine.standing, read) {
                    (Standing::Failed(_), _) => self.refuse_faults(key),
                    (_, Err(failure)) => self.fail(key, &failure),
                    (_, Ok(())) => {}
                }
            }
            Token::End(key) => self.end(key),
        }
    }

    /// Removes a machine whose process has ended. A VMM says nothing after its handshake; one that does is given up.
    fn end(&mut self, key: u32) {
        let Some(machine) = self.machines.get(&key) else {
            return;
        };
        // Of one that was given up only the end is waited for.
        if machine.failed().is_none() && machine.has_said_more() {
            let fd = machine.connection.as_fd();
            if let Err(error) = self.poller.change(fd, Token::End(key), Interest::End) {
                tracing::error!(%error, "the end of a machine cannot be watched");
            }
            let what = "it writes to its connection after the handshake".to_owned();
            return self.fail(key, &Failure::Unexpected(what));
        }
        if let Some(machine) = self.machines.remove(&key) {
            self.forget(&machine);
            self.announce(&PagerEvent::Gone(machine.stats()));
        }
    }

    fn forget(&self, machine: &Machine) {
        self.poller.remove(&machine.uffd);
        self.poller.remove(&machine.connection);
    }

    /// A turn of each machine that has faults, as far as a round goes; whether any of them got on. One that cannot,
    /// keeps nobody from being filled ahead.
    fn serve_faults(&mut self) -> bool {
        let mut got_on = false;
        let mut left = FAULTS_PER_ROUND;
        let keys: Vec<u32> = self
            .machines
            .iter()
            .filter(|(_, machine)| machine.has_faults())
            .map(|(key, _)| *key)
            .collect();
        let first = keys.partition_point(|key| *key < self.turn);
        for key in keys[first..].iter().chain(&keys[..first]) {
            if left == 0 {
                break;
            }
            self.turn = key.wrapping_add(1);
            let Some(machine) = self.machines.get_mut(key) else {
                continue;
            };
            for _ in 0..FAULTS_PER_TURN {
                if !machine.has_faults() || left == 0 {
                    break;
                }
                match machine.serve_fault(&mut self.source, Instant::now()) {
                    Ok(Served::Done) => {
                        got_on = true;
                        left -= 1;
                    }
                    // It costs nobody a turn: what waits behind it comes before any work ahead.
                    Ok(Served::Busy | Served::Gone) => break,
                    Err(failure) => {
                        got_on = true;
                        self.fail(*key, &failure);
                        break;
                    }
                }
            }
        }
        got_on
    }

    /// One piece for one machine that has something to be filled ahead.
    fn serve_ahead(&mut self) {
        let now = Instant::now();
        let is_due = |machine: &Machine| {
            // What it waits for comes first, and must not be taken for served because something else was.
            matches!(machine.standing, Standing::Served)
                && !machine.has_faults()
                && machine.vm.ahead_due().is_some_and(|due| match due {
                    Due::Now => true,
                    Due::At(time) => time <= now,
                })
        };
        let due = |range: std::ops::Range<u32>| {
            let mut range = self.machines.range(range);
            range
                .find(|(_, machine)| is_due(machine))
                .map(|(key, _)| *key)
        };
        let next = due(self.ahead_turn..u32::MAX).or_else(|| due(0..self.ahead_turn));
        let Some(key) = next else {
            return;
        };
        self.ahead_turn = key.wrapping_add(1);
        let Some(machine) = self.machines.get_mut(&key) else {
            return;
        };
        let mut served = machine.serve_ahead(&mut self.source, self.ahead_pages, now);
        if served.is_ok() && machine.vm.has_graduated() {
            served = machine.let_go(now);
        }
        if let Err(failure) = served {
            self.fail(key, &failure);
        }
    }

    /// Forgets machines that have been complete for long enough.
    fn end_complete(&mut self, now: Instant) {
        let is_over = |machine: &Machine| match machine.standing {
            Standing::Complete(since) => now.duration_since(since) > LINGER,
            Standing::Served | Standing::Failed(_) => false,
        };
        let over: Vec<u32> = self
            .machines
            .iter()
            .filter(|(_, machine)| is_over(machine))
            .map(|(key, _)| *key)
            .collect();
        for key in over {
            if let Some(machine) = self.machines.remove(&key) {
                self.forget(&machine);
                self.announce(&PagerEvent::Graduated(machine.stats()));
            }
        }
    }

    fn is_done(&mut self, now: Instant) -> bool {
        if !self.machines.is_empty() {
            self.idle_since = None;
            return false;
        }
        if self.draining && self.unheard.is_empty() {
            // The last answers have been sent, or their reader is not reading.
            return true;
        }
        if !self.connections.is_empty() {
            self.idle_since = None;
            return false;
        }
        let since = *self.idle_since.get_or_insert(now);
        let limit = if self.unheard.is_empty() {
            IDLE_LIMIT
        } else {
            UNHEARD_LIMIT
        };
        now.duration_since(since) >= limit
    }

    /// How long nothing is to be done unless somebody has something.
    fn timeout(&self, now: Instant) -> Option<Duration> {
        let idle = self.connections.is_empty() && self.machines.is_empty();
        let of_machine = |machine: &Machine| match &machine.standing {
            Standing::Failed(_) => None,
            Standing::Complete(since) => Some((*since + LINGER).saturating_duration_since(now)),
            Standing::Served if machine.vm.is_stalled() => Some(RETRY_AFTER),
            Standing::Served if machine.has_faults() => Some(Duration::ZERO),
            Standing::Served => machine.vm.ahead_due().map(|due| match due {
                Due::Now => Duration::ZERO,
                Due::At(time) => time.saturating_duration_since(now),
            }),
        };
        let machines = self.machines.values().filter_map(of_machine);
        machines.chain(idle.then_some(IDLE_LIMIT)).min()
    }
}
