//! The Firecracker driver.
//!
//! Reading order: what may be configured, what the host offers, the calls of a machine's life as pure data, the client
//! of the API, the driver, a running machine, restoring and capturing.

mod config;
mod host;
mod jail;
mod version;

mod calls;
mod layout;

mod api;
mod app_log;
mod connection;
mod vsock;

mod driver;
mod prepare;
mod start;

mod capture;
mod report;
mod shmem;
mod vm;

pub use config::FirecrackerConfig;
pub use host::{HostReport, KvmAccess, probe};
pub use jail::JailConfig;
pub use shmem::shmem_keeps_pages_apart;
pub use version::FirecrackerVersion;
pub use vm::trim_log;
pub use vsock::AGENT_PORT;

pub use driver::FirecrackerDriver;
