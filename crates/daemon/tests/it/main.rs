//! The daemon on fakes: router, actors, records, memory images and files are the real
//! ones; the VMM is hypervisor's fake driver, the guest is guest's fake agent.

#![expect(clippy::unwrap_used, reason = "tests may")]

mod world;

mod scenarios;

mod crashes;
mod faults;
mod forks;
mod images;
mod lifecycle;
mod templates;
