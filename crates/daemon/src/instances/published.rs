//! What an instance's actor shows to everybody else: a snapshot with a generation
//! number, replaced whole on every change. Readers never ask the actor.

use std::sync::Arc;

use guest::Link;
use hypervisor::Vm;
use memory::StoredRam;
use model::{PhaseClock, State};

use super::pagers::{Mapped, Paged};

/// The published snapshot of one instance.
#[derive(Clone)]
pub struct Published {
    /// Rises with every change.
    pub generation: u64,
    /// The derived state.
    pub state: State,
    /// What is wrong, in [`State::Unknown`].
    pub state_error: Option<String>,
    /// An operation is under way.
    pub busy: bool,
    /// The record is gone: the last snapshot there will be.
    pub deleted: bool,
    /// Time in each state.
    pub phases: PhaseClock,
    /// The line to the agent, while there is one.
    pub link: Option<Link>,
    /// The VM, while there is one.
    pub vm: Option<Arc<dyn Vm>>,
    /// It gets its memory from a pager.
    pub paged: Option<Arc<Paged>>,
    /// It maps its template's memory.
    pub mapped: Option<Arc<Mapped>>,
    /// Bytes of template memory that are held loaded for forks.
    pub held_bytes: u64,
    /// How the image is stored that it would wake from.
    pub image: Option<StoredRam>,
    /// VMs of forks that are prepared ahead.
    pub warm: Vec<Arc<dyn Vm>>,
}
