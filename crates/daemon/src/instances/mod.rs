//! Instances: the public handle to all of them.
//!
//! Reading goes through published snapshots and the records; every change goes through
//! the mailbox of the instance's actor. This module knows neither HTTP nor JSON.

mod actor;
mod backend;
mod birth;
mod blocking;
mod boot;
mod changes;
mod command;
mod context;
mod create;
mod disk;
mod drivers;
mod error;
mod fanout;
mod fork;
mod identity;
mod journal;
mod layout;
mod pagers;
mod published;
mod reaching;
mod recover;
mod registry;
mod restoring;
mod slot;
mod standby;
mod stop;
mod sweep;
mod template;
mod update;
mod view;
mod waiting;
mod warm;

pub use changes::Changes;
pub use command::{ForkMemory, ForkOrder, ForkResult, Patch, StartOverrides};
pub use context::{BootFiles, Context, Everybody};
pub use drivers::Drivers;
pub use error::{OpError, chain};
pub use layout::{InstanceDir, Layout, LogSource};
pub use pagers::{
    Figures, HotStore, Mapped, MappedFigures, Paged, PagerPolicy, PagerTotals, Pagers, Totals,
};
pub use published::Published;
pub use registry::Instances;
pub use slot::{HostPorts, Networking, held};
pub use sweep::Swept;
pub use view::{Listed, View, WaitOutcome};
pub use warm::WarmPolicy;
