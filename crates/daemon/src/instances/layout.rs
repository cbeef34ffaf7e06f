//! Where things lie in the data directory. Paths only: nothing here touches the disk.

use std::path::{Path, PathBuf};

use hypervisor::LogFiles;
use model::{ImageId, InstanceId};

/// The data directory.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout below `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The database of records.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.root.join("coppice.db")
    }

    /// The default unix socket of the daemon.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.root.join("coppiced.sock")
    }

    /// Held locked by the daemon that owns the directory.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.root.join("coppiced.lock")
    }

    /// The secret that tokens are signed with.
    #[must_use]
    pub fn token_secret(&self) -> PathBuf {
        self.root.join("token.secret")
    }

    /// Kernel and initrd.
    #[must_use]
    pub fn boot(&self) -> PathBuf {
        self.root.join("boot")
    }

    /// Root images by digest.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Empty formatted disks by size, the lowest layer of every instance's disk.
    #[must_use]
    pub fn blank_disk(&self, size_bytes: u64) -> PathBuf {
        self.root
            .join("disks")
            .join(format!("ext4-{size_bytes}.raw"))
    }

    /// What the last look at the host's KVM said.
    #[must_use]
    pub fn kvm_verdict(&self) -> PathBuf {
        self.root.join("kvm-verdict.json")
    }

    /// Names this directory in everything that is made on the host for it.
    #[must_use]
    pub fn mark(&self) -> PathBuf {
        self.root.join("network.mark")
    }

    /// What serves memory images page by page, by image.
    #[must_use]
    pub fn pagers(&self) -> PathBuf {
        self.root.join("pagers")
    }

    /// All instances.
    #[must_use]
    pub fn instances(&self) -> PathBuf {
        self.root.join("instances")
    }

    /// One instance.
    #[must_use]
    pub fn instance(&self, id: &InstanceId) -> InstanceDir {
        InstanceDir {
            root: self.instances().join(id.as_str()),
        }
    }
}

/// The directory of one instance. It holds everything the instance needs, so that
/// removing any other directory never hurts it.
#[derive(Debug, Clone)]
pub struct InstanceDir {
    root: PathBuf,
}

impl InstanceDir {
    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The disk chain of the running or stopped machine.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.root.join("disk")
    }

    /// Sockets and process notes of the VMM.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// The logs that the VMM writes.
    #[must_use]
    pub fn log_files(&self) -> LogFiles {
        LogFiles {
            vmm: self.log(LogSource::Vmm),
            console: self.log(LogSource::Console),
            app: self.log(LogSource::App),
        }
    }

    /// Where a VMM hands its memory over to a pager, while it does.
    #[must_use]
    pub fn pager_socket(&self) -> PathBuf {
        self.root.join("pager.sock")
    }

    /// All memory images that the instance has a hand on.
    #[must_use]
    pub fn memory(&self) -> PathBuf {
        self.root.join("memory")
    }

    /// One memory image.
    #[must_use]
    pub fn image(&self, id: &ImageId) -> PathBuf {
        self.memory().join(id.as_str())
    }

    /// The logs.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// One log.
    #[must_use]
    pub fn log(&self, source: LogSource) -> PathBuf {
        self.logs().join(match source {
            LogSource::App => "app.log",
            LogSource::Vmm => "vmm.log",
            LogSource::Console => "console.log",
            LogSource::Operations => "operations.log",
        })
    }
}

/// What a log tells about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogSource {
    /// The output of the image's program.
    App,
    /// What the VMM wrote.
    Vmm,
    /// What the guest's kernel wrote.
    Console,
    /// What coppice did to the instance.
    Operations,
}
