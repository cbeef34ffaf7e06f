//! The edge as a process: its place on disk, its beginning and its end.

mod command;
mod lock;
mod place;
mod start;

pub use command::{EDGE_COMMAND, main};
pub use place::Place;
pub use start::{Found, Start, StartError, ensure};

pub(crate) use lock::Lock;
