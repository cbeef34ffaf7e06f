//! The daemon: HTTP at one end, VMMs at the other, records in between.
#![forbid(unsafe_code)]

pub mod app;
pub mod config;
pub mod doctor;
pub mod edge;
mod entropy;
mod housekeeping;
pub mod http;
pub mod images;
pub mod ingress;
pub mod instances;
mod leases;
mod logs;
pub mod metrics;
pub mod setup;
pub mod store;
pub mod teardown;
pub mod tokens;

/// The hidden argument with which the daemon starts itself as the launcher of a VMM.
pub const LAUNCH_COMMAND: &str = "__launch";

/// The hidden argument with which the daemon starts itself as a pager.
pub const PAGER_COMMAND: &str = "__pager";
