//! Disk files: empty overlays and formatted base disks.
//!
//! Copies of disk files are [`memory::copy_sparse`]; chains are put together by the caller.

mod ext4;
mod qcow2;

pub use ext4::format_ext4;
pub use qcow2::create_overlay;
