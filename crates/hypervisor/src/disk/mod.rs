//! Disk files: empty overlays, formatted base disks, and the chains that are put together of them.
//!
//! Copies of disk files are [`memory::copy_sparse`].

mod chain;
mod ext4;
mod qcow2;

pub use chain::extend_chain;
pub use ext4::format_ext4;
pub use qcow2::create_overlay;
