//! What a guest boots: the distribution's cloud kernel, unpacked from its package without being
//! installed, and an initrd that holds the agent as `/init` and just the kernel modules it needs.
//!
//! [`Assets::install`] makes a set of both in a directory named by its content; [`Assets::open`]
//! finds the newest set again. A set never changes after it was made, so a running machine may go on
//! using its files while a newer set is installed beside it.
//!
//! The kernel command line is not decided here: it belongs to the hypervisor driver.

mod assets;
mod elf;
mod error;
mod files;
mod initrd;
mod kernel;
mod modinfo;
mod modules;
pub mod package;
mod vmlinux;

pub use assets::{Assets, AssetsId};
pub use error::BootError;
pub use initrd::Archive;
pub use kernel::{KernelSource, Step};
pub use modules::{Module, ModuleTree};
