//! The daemon on fakes: router, actors, records, memory images and files are the real
//! ones; the VMM is hypervisor's fake driver, the guest is guest's fake agent.

#![expect(clippy::unwrap_used, reason = "tests may")]

mod warm;
mod world;

mod scenarios;

mod access;
mod compression;
mod crashes;
mod edge;
mod edge_process;
mod events;
mod faults;
mod filesystems;
mod forks;
mod guests;
mod hot;
mod images;
mod imports;
mod lifecycle;
mod locks;
mod network;
mod observing;
mod oci;
mod openapi;
mod paging;
mod property;
mod readers;
mod recovery;
mod templates;
mod vmms;
