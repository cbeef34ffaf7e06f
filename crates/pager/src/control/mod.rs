//! The protocol between a daemon and its pagers.

mod message;
mod socket;

pub use message::NamedStats;
pub(crate) use message::{
    FromPager, Hello, Numbered, PROTOCOL, PagerEvent, Registration, Reply, Request, Served,
};
pub(crate) use socket::{Filled, Inbox, frame, receive, send};
