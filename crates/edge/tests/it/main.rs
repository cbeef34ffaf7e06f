//! The edge by its sockets: clients, guests and the daemon are played on the loopback.
#![expect(clippy::unwrap_used, reason = "tests may")]

mod guest;
mod requests;
mod world;

mod applying;
mod failures;
mod golden;
mod names;
mod processes;
mod publishing;
mod routing;
mod streams;
mod tls;
mod waking;
