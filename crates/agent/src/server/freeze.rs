//! Standing still: from before a memory image is taken until the machine knows who it is.
//!
//! A machine that wakes from an image must not run a program before it has random numbers, a clock
//! and an identity of its own. So its programs are frozen in the image. Nothing but a word of the
//! host thaws them: that the host went away means nothing, for a fork it never was there.
//!
//! The server goes before the programs from here until it has said what it has to say after the
//! thaw. Otherwise every program would do a piece of its cold work before the host hears that the
//! machine is ready.

use protocol::{Failure, FailureKind};

use super::Server;
use crate::machine::Machine;

impl<M: Machine> Server<M> {
    /// Writes everything out and stops the programs. First the one, because a program waiting for
    /// the disk cannot be stopped, and because a stopped one may be what a file system waits for.
    pub(super) fn quiesce(&mut self) -> Result<(), Failure> {
        if self.resume.is_some() {
            return Err(Failure::new(FailureKind::Phase, "a resume is under way"));
        }
        self.require_no_rehearsal()?;
        self.machine.sync();
        if !self.frozen {
            self.machine.freeze()?;
            self.frozen = true;
            self.machine.run_ahead(true);
            self.ahead = true;
        }
        // What was said before belongs into this machine's log, not into that of each fork.
        self.drain_program();
        Ok(())
    }

    /// Lets the programs go on, if they stand still.
    pub(super) fn thaw(&mut self) -> Result<(), Failure> {
        if self.frozen {
            self.machine.thaw()?;
            self.frozen = false;
        }
        Ok(())
    }

    /// Nothing is left to do: the programs have their turn again.
    pub(super) fn fall_in(&mut self) {
        if self.ahead && !self.frozen {
            self.machine.run_ahead(false);
            self.ahead = false;
        }
    }

    /// Refuses what would change a machine that stands still. A process could not be started
    /// either: it would stop before it is told what to run.
    pub(super) fn require_running(&self) -> Result<(), Failure> {
        if self.frozen {
            return Err(Failure::new(FailureKind::Phase, "the machine is frozen"));
        }
        Ok(())
    }
}
