//! A machine that a pager serves: its descriptors and how it stands.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::net::RecvFlags;

use crate::control::{NamedStats, Registration};
use crate::handshake;
use crate::layout::Layout;
use crate::plan::Batches;
use crate::source::Source;
use crate::state::State;
use crate::sys::{Stop, Uffd};
use crate::vm::{Failure, Served, Vm};

/// How a machine stands.
#[derive(Debug)]
pub(super) enum Standing {
    /// Being served.
    Served,
    /// Given up; its faults are answered with a signal. Waits for the end of its process.
    Failed(String),
    /// Complete since then; its last events are still read.
    Complete(Instant),
}

/// One machine.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) registration: Registration,
    pub(super) vm: Vm,
    pub(super) uffd: Uffd,
    /// The VMM never writes to it; its end tells the end of the process.
    pub(super) connection: OwnedFd,
    pub(super) state_fd: OwnedFd,
    pub(super) standing: Standing,
}

impl Machine {
    pub(super) fn new(
        registration: Registration,
        [uffd, connection, state_fd]: [OwnedFd; 3],
        layout: Arc<Layout>,
        batches: Batches,
    ) -> Result<Self, String> {
        let ram_bytes = layout.pages() * memory::PAGE_BYTES as u64;
        let regions = handshake::parse(&registration.handshake, ram_bytes)
            .map_err(|error| format!("the VMM's handshake is refused: {error}"))?;
        let state = State::open(&state_fd, layout.pages()).map_err(|error| error.to_string())?;
        let mut vm = Vm::new(layout, regions, state, batches);
        vm.stats.takeovers = registration.takeovers;
        if let Some(hot) = &registration.hot_pages {
            vm.prefetch(hot);
        }
        if registration.record {
            vm.record();
        }
        if let Some(bytes_per_second) = registration.graduate {
            vm.graduate(bytes_per_second, Instant::now());
        }
        Ok(Self {
            registration,
            vm,
            uffd: Uffd::from(uffd),
            connection,
            state_fd,
            standing: Standing::Served,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.registration.vm
    }

    pub(super) fn failed(&self) -> Option<&str> {
        match &self.standing {
            Standing::Failed(reason) => Some(reason),
            Standing::Served | Standing::Complete(_) => None,
        }
    }

    pub(super) fn stats(&self) -> NamedStats {
        NamedStats {
            vm: self.name().to_owned(),
            stats: self.vm.stats.clone(),
        }
    }

    /// First deed of a pager for this machine. Also right for a machine that nobody has served yet.
    pub(super) fn start(&mut self, now: Instant) -> Result<(), Failure> {
        self.vm.take_over(&self.uffd, now)
    }

    /// Reads what the kernel has to say.
    pub(super) fn read(&mut self, now: Instant) -> Result<(), Failure> {
        if !self.vm.has_room() {
            return Ok(());
        }
        let slots = self.vm.state().slots();
        let count = self.uffd.read(slots).map_err(Failure::Memory)?;
        if count == 0 {
            return Ok(());
        }
        self.vm.take_messages(count, now)
    }

    pub(super) fn has_faults(&self) -> bool {
        matches!(self.standing, Standing::Served) && self.vm.has_faults()
    }

    pub(super) fn serve_fault(
        &mut self,
        source: &mut impl Source,
        now: Instant,
    ) -> Result<Served, Failure> {
        self.vm.serve_fault(&self.uffd, source, now)
    }

    pub(super) fn serve_ahead(
        &mut self,
        source: &mut impl Source,
        pages: u64,
        now: Instant,
    ) -> Result<Served, Failure> {
        self.vm.serve_ahead(&self.uffd, source, pages, now)
    }

    /// Answers the waiting faults with a signal, since the bytes due are not to be had. False if this host cannot.
    pub(super) fn refuse_faults(&mut self) -> bool {
        self.vm
            .give_up_faults()
            .into_iter()
            .all(
                |(address, bytes)| match self.uffd.poison(address, bytes).stop {
                    Some(Stop::Refused(_)) => false,
                    None
                    | Some(
                        Stop::Exists | Stop::Busy | Stop::Gone | Stop::NoMemory | Stop::Unreadable,
                    ) => true,
                },
            )
    }

    /// Whether there is something to read from its connection, rather than its end.
    pub(super) fn has_said_more(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let peeked = rustix::net::recv(&self.connection, &mut [0_u8; 1][..], flags);
        peeked.is_ok_and(|(count, _)| count > 0)
    }

    /// Nobody serves it any more, once that is done.
    pub(super) fn let_go(&mut self, now: Instant) -> Result<Served, Failure> {
        let done = self.vm.let_go(&self.uffd, now)?;
        if done == Served::Done {
            self.standing = Standing::Complete(now);
        }
        Ok(done)
    }
}
