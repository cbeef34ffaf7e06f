//! The nouns and the rules of coppice: what an instance is, in which state it
//! is, what may be done to it, what a fork inherits.
//!
//! No IO, no clock, no randomness, no async: everything is a function of its
//! arguments, so every rule of the lifecycle can be tested without a machine.
#![forbid(unsafe_code)]

mod admit;
mod backend;
mod compression;
mod duration;
mod fork;
mod id;
mod inherit;
mod name;
pub mod network;
mod phase;
mod rate;
mod record;
mod recover;
mod refusal;
mod size;
mod spec;
mod state;
mod tags;
mod wait;

pub use admit::{Operation, Verdict, admit};
pub use backend::{
    Backend, BackendWish, HotPlan, ImageUse, MemorySpec, Paging, Prefetch, REFRESH_EVERY,
    RENEW_EVERY, RamForm, Recording, Wishes, choose_backend, maps_ahead, plan_hot_pages,
};
pub use compression::{
    Compression, CompressionError, DEFAULT_ZSTD_LEVEL, SnapshotPolicy, ZSTD_LEVELS,
};
pub use duration::{DurationError, format_duration, parse_duration};
pub use fork::{ForkAsk, ForkMode, ForkPlan, MAX_FORKS, Target, check_fork, fork_names, plan_fork};
pub use id::{IdError, ImageId, InstanceId};
pub use inherit::inherit;
pub use name::{Name, NameError};
pub use network::{NetworkLease, NetworkSpec, PolicyPatch};
pub use phase::PhaseClock;
pub use rate::{Rate, RateError};
pub use record::{ExitInfo, InstanceRecord, Intent, MemoryMode, MemoryOrigin, UnixMillis};
pub use recover::{Repair, Survivor, repair};
pub use refusal::{Refusal, RefusalKind};
pub use size::{ByteSize, SizeError};
pub use spec::{InstanceSpec, PostFork};
pub use state::{Facts, GuestFact, ImageFact, State, VmmFact, derive, move_allowed};
pub use tags::{TagError, Tags, check as check_tags};
pub use wait::{WaitVerdict, wait_verdict};
