//! Complete descriptions of a machine to start.

use std::path::PathBuf;

pub use memory::DiskFormat;

use crate::Nic;

/// Size of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineSpec {
    /// Virtual CPUs, at least one.
    pub vcpus: u32,
    /// Guest RAM in bytes, a multiple of 1 MiB.
    pub ram_bytes: u64,
}

/// Form of a kernel image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelFormat {
    /// Compressed, as distributions install it (`vmlinuz`).
    Bzimage,
    /// Uncompressed ELF (`vmlinux`).
    Elf,
}

/// What the guest boots.
#[derive(Debug, Clone)]
pub struct KernelFiles {
    /// Kernel image, in the form that the VMM boots ([`crate::Powers::kernel`]).
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: PathBuf,
    /// Words added to the driver's own kernel command line.
    pub cmdline_extra: String,
}

/// One file of the disk chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskFile {
    /// The file.
    pub path: PathBuf,
    /// Its format.
    pub format: DiskFormat,
}

/// Files the machine's output is appended to; they are created if missing.
#[derive(Debug, Clone)]
pub struct LogFiles {
    /// What the VMM says about itself.
    pub vmm: PathBuf,
    /// The guest's serial console.
    pub console: PathBuf,
    /// Output of the guest's program.
    pub app: PathBuf,
}

/// A machine to boot.
#[derive(Debug, Clone)]
pub struct LaunchPlan {
    /// Instance id; names the process.
    pub name: String,
    /// Existing directory for sockets and records of this run; one per machine.
    pub run_dir: PathBuf,
    /// Size.
    pub machine: MachineSpec,
    /// What to boot.
    pub kernel: KernelFiles,
    /// Read-only root file system image.
    pub root: PathBuf,
    /// Disk chain, base first; the last one is written to, the others never.
    pub disk: Vec<DiskFile>,
    /// Logs.
    pub logs: LogFiles,
    /// Its network card, if it has one.
    pub nic: Option<Nic>,
}

/// What a restored machine does with the image's RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RamUse {
    /// Map all layers privately, shared with every other fork of the image.
    Fork,
    /// As `Fork`, for the one machine that went to standby: where the layers below the newest are loaded already,
    /// those are mapped and the newest is written over them, so that its next diff replaces the newest layer
    /// instead of coming on top of it.
    Own,
    /// A full copy that shares nothing.
    Copied,
}

/// Where a restored machine's RAM comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum MemoryBackend {
    /// The driver verifies the image, loads its RAM, and lets the VMM map it. Forks share clean pages.
    #[default]
    File,
    /// A pager answers the VMM's page faults (userfaultfd). The driver does not read the RAM: the pager checks what it
    /// serves. Pages that were touched belong to the machine alone.
    Pager {
        /// Socket on which the pager waits for the VMM's hand-over of its memory.
        socket: PathBuf,
    },
}

/// State of the machine once it is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// It runs.
    Running,
    /// Its CPUs stand still.
    Paused,
}

/// A machine to restore from a memory image.
#[derive(Debug, Clone)]
pub struct RestorePlan {
    /// Instance id; names the process.
    pub name: String,
    /// Existing directory for sockets and records of this run; one per machine.
    pub run_dir: PathBuf,
    /// The image, in a directory that belongs to this machine's instance.
    pub image_dir: PathBuf,
    /// Read-only root file system image, the same bytes as when the image was taken.
    pub root: PathBuf,
    /// Disk chain, base first: the image's chain and one new file on top, which is written to.
    pub disk: Vec<DiskFile>,
    /// Logs.
    pub logs: LogFiles,
    /// Its network card: with the address it had when the image was taken, or none if it had none then.
    pub nic: Option<Nic>,
    /// What happens with the image's RAM.
    pub ram: RamUse,
    /// Where the RAM comes from.
    pub memory: MemoryBackend,
    /// State afterwards.
    pub wake: Wake,
}
