//! The network on the real kernel, proven with packets.
//!
//! Every test has a host of its own (`lab`); guests are Linux network stacks behind the TAPs of slots (`guest`).
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod bandwidth;
mod conformance;
mod guest;
mod lab;
mod place;
mod policy;
mod ports;
mod reach;
mod reuse;
mod survival;
#[expect(unsafe_code, reason = "system calls")]
mod sys;
