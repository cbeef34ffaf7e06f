//! What the server does to the machine it runs on.

use protocol::{Failure, Identity, StartSpec};

use crate::Enclosure;

/// A program that changes nothing and ends at once with 0.
#[derive(Debug)]
pub struct StandIn {
    /// Program and arguments; not of the image.
    pub argv: Vec<String>,
    /// Where it runs while everything in [`Machine::enclosure`] stands still.
    pub enclosure: Option<Enclosure>,
}

/// The machine under the server: the guest itself when it is PID 1, something harmless in tests.
pub trait Machine {
    /// Makes the freshly booted machine ready for its program: root file system, identity, entropy,
    /// clock.
    ///
    /// # Errors
    /// What could not be done; the machine cannot be used then.
    fn set_up(&mut self, spec: &StartSpec) -> Result<(), Failure>;

    /// Makes the machine, woken from a memory image, the one described. Entropy comes first.
    ///
    /// # Errors
    /// What could not be done; the machine must not be used then.
    fn assume(&mut self, identity: &Identity) -> Result<(), Failure>;

    /// Goes the way of [`Machine::assume`] as far as that changes nothing. The machine is frozen.
    ///
    /// # Errors
    /// What could not be done; the machine is as it was.
    fn rehearse(&mut self) -> Result<(), Failure>;

    /// What is run in place of a command while the machine is frozen.
    fn stand_in(&self) -> StandIn;

    /// Writes all file systems out.
    fn sync(&mut self);

    /// Where every process that the server starts goes before it runs its program. Without one the
    /// machine cannot freeze.
    fn enclosure(&self) -> Option<&Enclosure>;

    /// Stops everything in the enclosure; returns when it stands still.
    ///
    /// # Errors
    /// What does not stop; everything runs then.
    fn freeze(&mut self) -> Result<(), Failure>;

    /// Lets everything in the enclosure go on.
    ///
    /// # Errors
    /// What the kernel said.
    fn thaw(&mut self) -> Result<(), Failure>;

    /// Lets the server go before everything in the enclosure, or take turns with it. Best effort, for
    /// it costs time only.
    fn run_ahead(&mut self, ahead: bool);

    /// Ends all processes, writes all file systems out and switches the machine off. As PID 1 it
    /// does not return.
    fn power_off(&mut self);
}
