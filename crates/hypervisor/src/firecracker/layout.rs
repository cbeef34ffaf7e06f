//! Names and numbers that every machine has in common, so that a saved one can be loaded in another place.
//!
//! Device state names files by the paths that Firecracker was given. They are relative to its working directory, which
//! is the machine's own run directory, and lead to the machine's own files. Change anything the guest can see, and
//! [`LAYOUT`] must change with it.

/// Revision of the devices and their order; part of the machine's name in manifests.
pub(super) const LAYOUT: u32 = 1;

/// Descriptors that the launcher gives to Firecracker: RAM of the image, RAM as it is saved, device state. Higher than
/// the numbers that Firecracker reaches by itself, so that one that was not given is not there; lower than the limit
/// of descriptors, whose last number Firecracker uses for a moment.
pub(super) const RAM_FD: i32 = 1000;
pub(super) const SAVED_RAM_FD: i32 = 1001;
pub(super) const STATE_FD: i32 = 1002;

/// Socket of the API.
pub(super) const API: &str = "api";
/// Socket by which Firecracker connects the host with ports of the guest.
pub(super) const VSOCK: &str = "vsock";
/// Links to the root file system image and to the disk.
pub(super) const ROOT: &str = "root";
pub(super) const DISK: &str = "disk";
/// Link to the socket of the pager.
pub(super) const PAGER: &str = "pager";
/// What Firecracker logs. It does not append, so each run has a log of its own, added to the machine's when it ends.
pub(super) const LOG: &str = "vmm.out";

/// Directory in which the jailer makes roots.
pub(super) const JAIL: &str = "jail";
/// Files that only a jailed machine has under a name; others get descriptors and paths.
pub(super) const KERNEL: &str = "kernel";
pub(super) const INITRD: &str = "initrd";
pub(super) const STATE: &str = "state";
pub(super) const SAVED_RAM: &str = "saved";

/// Everything that the driver makes in a run directory.
pub(super) const NAMES: [&str; 6] = [API, VSOCK, ROOT, DISK, PAGER, LOG];

/// Id of the network card.
pub(super) const NIC: &str = "eth0";

/// Address of every guest on its vsock: each Firecracker has a network of its own.
pub(super) const GUEST_CID: u32 = 3;
