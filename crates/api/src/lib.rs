//! The REST contract of coppice: what goes over the wire, and nothing else.
//!
//! Every type here is a promise to clients, so none of them is used for the
//! daemon's own records. Requests refuse unknown fields; responses may grow.
//! Values that need rules (names, sizes, durations) are plain strings here and
//! are judged by the daemon.

pub mod health;

pub mod capabilities;

pub mod error;

pub mod query;

pub mod ingresses;
pub mod instances;

pub mod exec;

pub mod cp;

pub mod images;

pub mod openapi;

#[cfg(feature = "client")]
pub mod client;
