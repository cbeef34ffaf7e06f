//! The launcher: a program between the daemon and a VMM, which it becomes.
//!
//! The daemon starts itself with a hidden argument and a [`Spec`]; [`launch_main`] opens what the VMM inherits, says
//! in the run directory who it is, and becomes the VMM by exec when the daemon tells it to. So the daemon never forks, no
//! descriptor leaks into a VMM by accident, and no VMM runs that is not recorded: until the record is written, the
//! launcher dies with its daemon.

mod jail;
mod network;
mod program;
mod ready;
mod spawn;
mod spec;
#[expect(
    unsafe_code,
    reason = "descriptors are put on fixed numbers for the program that follows, namespaces and TAP devices have no safe binding"
)]
mod sys;

pub(crate) use program::MAX_OPEN_FILES;
pub use program::launch_main;
pub(crate) use ready::Launchers;
pub(crate) use spawn::{begin, spawn};
pub(crate) use spec::{Access, File, Jail, JailFile, Listener, Network, Slot, Spec};

/// What the daemon says, before its orders, to a launcher whose VMM will probably have no network.
const ALONE: &str = "alone\n";

/// What the daemon says when the VMM may start.
const GO: &[u8] = b"go\n";
