//! Agents, fake and real, seen through a link.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod conformance;
mod real_agent;
mod support;
