//! What the driver may be told.

use std::path::PathBuf;

/// Configuration of the QEMU driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QemuConfig {
    /// Program; searched as `qemu-system-x86_64` in the `PATH` if absent.
    pub qemu: Option<PathBuf>,
    /// Program and first arguments that lead to [`crate::launch_main`].
    pub launcher: Vec<String>,
    /// Accelerator.
    pub accel: AccelChoice,
    /// Machine model.
    pub machine: MachineChoice,
    /// User and group the VMM runs as; the daemon's own if absent. Only root can change it.
    pub vmm_uid: Option<u32>,
    /// Kernel that is started once to find out whether KVM runs it. Without one KVM is not trusted.
    pub probe_kernel: Option<PathBuf>,
    /// File in which the finding about KVM is kept until the host, the kernel or QEMU changes.
    pub verdict_cache: Option<PathBuf>,
}

/// Which accelerator is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccelChoice {
    /// KVM if it runs Linux guests here, else TCG.
    Auto,
    /// Translation; works everywhere.
    Tcg,
    /// KVM; the driver refuses to start if it is not usable.
    Kvm,
}

/// Which machine model is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineChoice {
    /// `microvm` with virtio-mmio devices: starts fastest and is smallest.
    Microvm,
    /// `q35` with virtio-pci devices, for guests that need PCI.
    Q35,
}
