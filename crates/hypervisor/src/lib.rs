//! The boundary to virtual machine monitors: what a driver offers, the drivers of QEMU and Firecracker, a fake
//! one, and the suite of tests that all of them pass.
//!
//! A driver takes a complete plan and gives a handle to a running machine. It keeps its secrets (sockets, process
//! layout, formats of device state) and leaves to its callers: instance states, directories, records, disk chains.

mod driver;
mod error;
mod nic;
mod plan;
mod process;

pub mod disk;
pub mod firecracker;
mod launch;
mod machine;
mod pages;
pub mod qemu;

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "fake")]
pub mod fake;

pub use driver::{
    Captured, Driver, ExitReason, GuestIo, GuestStream, MappedRam, MemoryReport, MemoryUse, Powers,
    Snapshots, TemplateHold, Templates, Vm, VmStatus, VmmIdentity,
};
pub use error::VmmError;
pub use firecracker::trim_log;
pub use launch::launch_main;
pub use nic::Nic;
pub use plan::{
    DiskFile, DiskFormat, KernelFiles, KernelFormat, LaunchPlan, LogFiles, MachineSpec,
    MemoryBackend, RamUse, RestorePlan, Wake,
};
pub use process::{ProcessId, is_running};
