//! A small client of QEMU's machine protocol: commands matched to answers by id, events, a deadline on everything.
//!
//! Written here because the two crates for it bring generated types for hundreds of commands; ten are used.

mod client;
mod message;

pub(crate) use client::Qmp;
