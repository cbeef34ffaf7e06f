//! A host whose KVM runs Linux guests, for tests on hosts that have none.
//!
//! Many build machines have no `/dev/kvm`, or one that runs no stock kernel. QEMU emulates a processor with SVM, and
//! KVM in a machine of that processor is KVM as users have it, only slow. [`Host::run`] boots such a machine, runs one
//! program in it and gives its output and its exit code.
//!
//! ```text
//! test ──▶ Host::run ──▶ QEMU (tcg, svm): Debian's kernel, kvm-amd
//!                          └── the same program, on the host's files, with a writable layer that is thrown away
//!                                └── Firecracker, QEMU with accel=kvm: guests
//! ```
//!
//! Kernel and initrd are made by `cargo xtask assets`. Nothing of a nested host is left when it ends.

mod command;
mod host;
mod tests_of_kvm;

pub use host::{End, Host, Output};
pub use tests_of_kvm::{Where, program};
