//! The QEMU driver.
//!
//! Reading order: what may be configured, what the host offers, the command line, the driver, a running machine,
//! restoring and capturing.

mod config;
mod host;
mod kvm;
mod version;

mod cmdline;
mod command;

mod driver;
mod prepare;
mod start;

mod capture;
mod complaints;
mod qmp;
mod vm;

#[expect(
    unsafe_code,
    reason = "the time stamp counter is read to tell guests its frequency"
)]
mod sys;

pub use config::{AccelChoice, MachineChoice, QemuConfig};
pub use driver::QemuDriver;
pub use host::{HostReport, probe};
pub use kvm::KvmVerdict;
pub use version::QemuVersion;
