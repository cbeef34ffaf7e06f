//! A harness for tests on real guests: the real daemon, the real VMM, the real agent.
//!
//! ```text
//! test ──▶ Daemon: a coppiced in a directory of its own, killed and started again at will
//!            ├── calls: raw answers with status and headers, and the typed client
//!            ├── guests: boot, fork, run commands, count in the guest's memory
//!            └── leftovers: processes and files, as the host sees them
//! ```
//!
//! Where a guest cannot run, [`Daemon::start`] says why in a line beginning with `skipped: ` and gives none.

mod place;

mod processes;

mod wait;

mod daemon;

mod calls;

mod guests;

mod leftovers;

mod records;

mod socket;

mod cli;

pub use calls::Answer;
pub use cli::Spoken;
pub use daemon::Daemon;
pub use guests::{COUNTER, Output, plain_create, share};
pub use leftovers::hashes;
pub use processes::Process;
pub use records::Records;
pub use socket::{Frame, Socket};
pub use wait::{Moment, patience, until};
