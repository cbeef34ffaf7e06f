//! The way down: the program ends by itself or is asked to, the host is told, the machine is
//! switched off.

use std::time::{Duration, Instant};

use protocol::{ExitStatus, Failure, FailureKind, ToHost};

use super::Server;
use crate::machine::Machine;

/// Time for the last messages and the last output to be taken by the host.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Time a killed program gets to be gone. It can take as long as the disk takes for a write.
const KILLED: Duration = Duration::from_secs(5);

/// Reads that empty a pipe of the usual 64 KiB, with some to spare.
const PIPE_ROUNDS: usize = 32;

/// How far the way down is.
#[derive(Debug, Default)]
pub(super) enum Ending {
    #[default]
    No,
    /// The program was asked to end.
    Asked { kill_at: Instant },
    /// The program was killed.
    Killed { give_up_at: Instant },
    /// Only last words are left.
    PowerOff { by: Instant },
}

impl Ending {
    pub(super) fn next_time(&self) -> Option<Instant> {
        match self {
            Ending::No => None,
            Ending::Asked { kill_at: at }
            | Ending::Killed { give_up_at: at }
            | Ending::PowerOff { by: at } => Some(*at),
        }
    }

    fn power_off() -> Self {
        Ending::PowerOff {
            by: Instant::now() + LAST_WORDS,
        }
    }
}

impl<M: Machine> Server<M> {
    pub(super) fn begin_shutdown(&mut self, signal: Option<i32>, grace: Duration) {
        if self.program.pid().is_none() {
            self.ending = Ending::power_off();
            return;
        }
        let stop_signal = self
            .context
            .as_ref()
            .map_or(libc::SIGTERM, |context| context.stop_signal);
        self.program.signal(signal.unwrap_or(stop_signal));
        // A program that stands still finds the signal when it goes on. One that cannot go on is
        // killed when its time is over.
        let _ = self.thaw();
        let now = Instant::now();
        let kill_at = now
            .checked_add(grace)
            .unwrap_or(now + Duration::from_secs(86400));
        // A second request may shorten the time, or send a stronger signal.
        self.ending = Ending::Asked { kill_at };
    }

    pub(super) fn acknowledge(&mut self) -> Result<(), Failure> {
        if self.program.exit().is_none() {
            return Err(Failure::new(
                FailureKind::Phase,
                "the program has not ended",
            ));
        }
        self.ending = Ending::power_off();
        Ok(())
    }

    pub(super) fn program_ended(&mut self, status: ExitStatus) {
        // Its last output goes to the log before anybody hears of the end.
        self.drain_program();
        self.program.exited(status);
        self.report_exit();
        match self.ending {
            Ending::Asked { .. } | Ending::Killed { .. } => self.ending = Ending::power_off(),
            Ending::No | Ending::PowerOff { .. } => {}
        }
    }

    /// Moves what the program has written to the log.
    pub(super) fn drain_program(&mut self) {
        self.program.woken();
        // A child that goes on writing must not hold anything up: what a pipe holds is enough.
        for _ in 0..PIPE_ROUNDS {
            if !self.program.pump(&mut self.log) || self.log.flush().is_err() {
                break;
            }
        }
    }

    pub(super) fn report_exit(&mut self) {
        if let Some(exit) = self.program.exit() {
            let message = ToHost::ProgramExited(exit.clone());
            self.send(&message);
        }
    }

    pub(super) fn check_ending(&mut self, now: Instant) {
        match self.ending {
            Ending::Asked { kill_at } if kill_at <= now => {
                self.program.kill();
                self.ending = Ending::Killed {
                    give_up_at: now + KILLED,
                };
            }
            Ending::Killed { give_up_at } if give_up_at <= now => self.ending = Ending::power_off(),
            Ending::No | Ending::Asked { .. } | Ending::Killed { .. } | Ending::PowerOff { .. } => {
            }
        }
    }

    pub(super) fn is_time_to_power_off(&self, now: Instant) -> bool {
        match self.ending {
            Ending::PowerOff { by } => {
                self.connection.is_flushed() && self.log.is_flushed() || by <= now
            }
            Ending::No | Ending::Asked { .. } | Ending::Killed { .. } => false,
        }
    }
}
