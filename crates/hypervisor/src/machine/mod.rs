//! What drivers of real VMMs have in common: does a plan fit, what is written down about a machine, how it is reached.

mod cpu;
mod fit;
pub(crate) mod log;
mod mapped;
pub(crate) mod program;
mod ram;
mod record;
mod run_dir;
mod ticks;
mod work;

pub(crate) use cpu::host_cpu;
pub(crate) use fit::{check_chain, check_machine, check_slot, digest};
pub(crate) use mapped::Mapped;
pub(crate) use ram::{Ram, adopt_ram, hold};
pub(crate) use record::{Base, MAX_LAYERS, Record};
pub(crate) use run_dir::{RunDir, STATE_PART};
pub(crate) use work::{blocking, in_place};
