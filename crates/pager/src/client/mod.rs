//! The daemon's end: pagers are started, watched and replaced; machines are handed to them.

mod attach;
mod config;
mod error;
mod keeper;
mod link;
mod pager;
mod supervisor;

pub(crate) use attach::is_ready;
pub use config::{Config, Limits};
pub use error::PagerError;
pub use supervisor::{Attach, Event, Supervisor};
