//! What can go wrong while boot assets are made or opened.

use std::io;
use std::path::PathBuf;

/// Why boot assets could not be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A file or directory could not be read or written.
    #[error("{action} {}", path.display())]
    Io {
        /// What was being done, as a verb: "read", "create".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The refusal of the system.
        source: io::Error,
    },
    /// A program needed for the work is not installed.
    #[error("{program} is missing, install the package {package}")]
    ProgramMissing {
        /// Name of the program.
        program: &'static str,
        /// Debian package that has it.
        package: &'static str,
    },
    /// A program ran and failed.
    #[error("{program} failed: {stderr}")]
    ProgramFailed {
        /// Name of the program.
        program: &'static str,
        /// The last lines it printed on standard error.
        stderr: String,
    },
    /// The package lists of this host name no kernel.
    #[error(
        "no kernel package behind {meta_package}, run `apt-get update` or give a kernel package or files"
    )]
    KernelPackageUnknown {
        /// The meta package that was asked for.
        meta_package: &'static str,
    },
    /// The package lists of this host lack a package.
    #[error("no package {name} in the lists of this host, run `apt-get update`")]
    PackageUnknown {
        /// Name of the package.
        name: String,
    },
    /// The given package or directory holds no kernel image.
    #[error("no kernel image (boot/vmlinuz-*) in {}", path.display())]
    KernelMissing {
        /// The package or directory.
        path: PathBuf,
    },
    /// The given package or directory holds no tree of kernel modules.
    #[error("no kernel modules (modules.builtin) in {}", path.display())]
    ModulesMissing {
        /// The package or directory.
        path: PathBuf,
    },
    /// A module that the guest cannot do without is neither built in nor in the module tree.
    #[error("kernel {kernel_version} has no module {module}")]
    ModuleMissing {
        /// Name of the module, with underscores.
        module: String,
        /// Release of the kernel.
        kernel_version: String,
    },
    /// Modules that need each other in a circle cannot be loaded.
    #[error("kernel module {module} depends on itself")]
    ModuleCycle {
        /// A module of the circle.
        module: String,
    },
    /// A module file is not what it should be.
    #[error("kernel module {} is not readable: {reason}", path.display())]
    ModuleUnreadable {
        /// The module file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No assets were installed in this directory yet.
    #[error("no boot assets in {}, run `coppice setup`", path.display())]
    NotInstalled {
        /// The directory looked in.
        path: PathBuf,
    },
    /// A set has no uncompressed kernel.
    #[error("the boot assets {id} have no uncompressed kernel, which Firecracker needs: {reason}")]
    NoVmlinux {
        /// The set.
        id: crate::AssetsId,
        /// Why it has none.
        reason: String,
    },
    /// The record of a set of assets is not readable.
    #[error("damaged record {}", path.display())]
    RecordDamaged {
        /// The record file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A file of a set is not the one that was installed.
    #[error("{} was changed after it was installed: expected sha256 {expected}", path.display())]
    Changed {
        /// The file that differs.
        path: PathBuf,
        /// Digest it had, in hexadecimal.
        expected: String,
    },
}

impl BootError {
    /// Wraps a refusal of the system with the path it was about.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
