//! What every instance's actor works with. Built once, by the composition root.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use hypervisor::KernelFormat;
use images::ImageStore;
use memory::Verified;
use model::{Compression, InstanceSpec, UnixMillis};

use super::OpError;
use super::changes::Changes;
use super::drivers::Drivers;
use super::layout::Layout;
use super::pagers::Pagers;
use super::registry::Instances;
use super::slot::{HostPorts, Networking};
use super::warm::WarmPolicy;
use crate::store::Store;

/// How long a guest may take from power-on to its program's start. Emulated
/// guests on a busy host need tens of seconds.
pub(crate) const BOOT_DEADLINE: Duration = Duration::from_secs(180);
/// How long a woken guest may take to answer with its new identity.
pub(crate) const RESUME_DEADLINE: Duration = Duration::from_secs(60);
/// How long the guest's file systems may take to be written out, and its programs to be
/// frozen, before a memory image is taken.
pub(crate) const QUIESCE_DEADLINE: Duration = Duration::from_secs(30);
/// How long the guest's programs may take to go on.
pub(crate) const THAW_DEADLINE: Duration = Duration::from_secs(5);
/// How long an operation waits for a line to the agent that is being made anew.
pub(crate) const LINK_DEADLINE: Duration = Duration::from_secs(10);
/// How long the program has between its stop signal and the kill.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long the guest may take to power off after its program is gone.
pub(crate) const POWER_OFF_DEADLINE: Duration = Duration::from_secs(5);

/// Kernel and initrd that machines boot with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFiles {
    /// The kernel, compressed.
    pub kernel: PathBuf,
    /// The same uncompressed, for VMMs that boot nothing else.
    pub elf_kernel: Option<PathBuf>,
    /// The initrd with the agent.
    pub initrd: PathBuf,
}

impl BootFiles {
    /// The kernel for a VMM that boots images of this form.
    #[must_use]
    pub fn kernel(&self, format: KernelFormat) -> Option<&Path> {
        match format {
            KernelFormat::Bzimage => Some(&self.kernel),
            KernelFormat::Elf => self.elf_kernel.as_deref(),
        }
    }
}

/// The parts that actors share.
pub struct Context {
    /// The records.
    pub store: Arc<Store>,
    /// Root images.
    pub images: Arc<ImageStore>,
    /// What is known to be intact already, shared with the driver.
    pub verified: Verified,
    /// The VMMs.
    pub drivers: Drivers,
    /// The data directory.
    pub layout: Layout,
    /// What machines boot with; none until `coppice setup` was run.
    pub boot: Option<BootFiles>,
    /// Forks and restores that may be started at one time.
    pub starts: tokio::sync::Semaphore,
    /// Where machines are connected.
    pub network: Networking,
    /// Domain of instances' names.
    pub zone: String,
    /// Ports of the host that lead to machines.
    pub ports: Arc<dyn HostPorts>,
    /// What followers have not heard of.
    pub changes: Changes,
    /// What memory images are written with where neither a request nor an instance says.
    pub compression: Compression,
    /// Forks that are prepared ahead.
    pub warm: WarmPolicy,
    /// What fills the memory of machines page by page.
    pub pagers: Arc<Pagers>,
    /// All instances, once they are there.
    pub everybody: Everybody,
    /// The wall clock.
    pub now: fn() -> UnixMillis,
}

/// The way from one instance to all others, for what only they can give.
#[derive(Default)]
pub struct Everybody(OnceLock<Weak<Instances>>);

impl Everybody {
    pub(super) fn set(&self, all: &Arc<Instances>) {
        // Instances are opened once for each context; a second time would be the same.
        let _ = self.0.set(Arc::downgrade(all));
    }

    /// None before they are there, and when they go.
    pub(super) fn get(&self) -> Option<Arc<Instances>> {
        self.0.get()?.upgrade()
    }
}

impl Context {
    /// The read-only root disk of an instance.
    pub(super) fn root_disk(&self, spec: &InstanceSpec) -> Result<PathBuf, OpError> {
        spec.image_digest
            .parse()
            .ok()
            .and_then(|digest| self.images.rootfs(&digest))
            .ok_or_else(|| OpError::NoImage(spec.image.clone()))
    }
}
