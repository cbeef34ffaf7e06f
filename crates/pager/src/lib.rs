//! The pager: serves the RAM of forks from a memory image, page by page, by userfaultfd.
//!
//! [`main`] is a process of its own for one image, with no rights but to serve. The daemon's end of it is a
//! [`Supervisor`], which keeps a duplicate of every userfaultfd, so that the death of a pager is a pause and never a
//! wrong byte. The daemon asks for pagers by [`PagerHost`], which has a fake too. What a pager does for a fault is decided by pure functions; see `plan` and `vm`.
//! All calls block, so callers run them off their event loop.

mod bitmap;
mod handshake;
mod layout;
mod regions;
#[expect(
    unsafe_code,
    reason = "userfaultfd, shared memory and giving up privileges are system calls"
)]
mod sys;

mod hot;
mod source;
mod state;
mod stats;

mod ahead;
mod plan;
mod vm;

mod control;
mod process;

mod client;
mod host;
mod processes;
mod support;

#[cfg(feature = "fake")]
pub mod conformance;
#[cfg(feature = "fake")]
pub mod fake;

pub use client::{Attach, Config, Event, Limits, PagerError, Supervisor};
pub use control::NamedStats;
pub use handshake::{HandshakeError, MAX_HANDSHAKE_BYTES, parse as parse_handshake};
pub use host::{EventSink, ImagePager, PagerHost, Place};
pub use hot::{ENOUGH_RECORDINGS, HotPages, Mark};
pub use process::{Settings, main};
pub use processes::{PagerProcesses, look_for_userfaultfd};
pub use regions::{Region, RegionError, Regions};
pub use stats::{Histogram, LATENCY_BUCKETS, VmStats};
pub use support::{Userfaultfd, check_confinement, userfaultfd};
