//! The traits every driver implements.
//!
//! A driver is made once per daemon; machines outlive it and are found again by [`Driver::adopt`].
//! Optional powers are objects: what a VMM cannot do has no method to call.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use memory::{DiskFormat, Draft, MachineFacts, Run, VmmFacts};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{KernelFormat, LaunchPlan, ProcessId, RestorePlan, VmmError};

/// Which VMM this is, exactly as memory images record it.
pub type VmmIdentity = VmmFacts;

/// What a driver can be asked for; for refusing a request before work begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Powers {
    /// Machines can be saved to memory images and restored.
    pub snapshots: bool,
    /// Restored machines can share the image's RAM.
    pub shared_memory: bool,
    /// RAM of restored machines can come from a pager.
    pub pager: bool,
    /// Format of the file that a guest writes to. `Qcow2`: an overlay, on top of a chain of files that are not
    /// written. `Raw`: a whole disk by itself, the only file of its chain.
    pub disk: DiskFormat,
    /// Form of the kernel images that machines boot.
    pub kernel: KernelFormat,
    /// Most virtual CPUs of one machine.
    pub max_vcpus: u32,
}

/// A VMM that machines are started with.
#[async_trait]
pub trait Driver: Send + Sync {
    /// Program, version, accelerator, machine and CPU model.
    fn identity(&self) -> &VmmIdentity;

    /// What may be asked for.
    fn powers(&self) -> Powers;

    /// Boots a machine. It runs when this returns.
    async fn launch(&self, plan: LaunchPlan) -> Result<Arc<dyn Vm>, VmmError>;

    /// Starts a machine from a memory image. It is as the plan's `wake` says when this returns; if it fails,
    /// no process is left.
    async fn restore(&self, plan: RestorePlan) -> Result<Arc<dyn Vm>, VmmError>;

    /// Finds the machine that an earlier driver started in `run_dir`. `None`: there is no such process any more,
    /// and what it left in the directory is removed. A machine of another VMM is refused with
    /// [`VmmError::Foreign`] and left as it is.
    async fn adopt(&self, run_dir: &Path) -> Result<Option<Arc<dyn Vm>>, VmmError>;

    /// Power to keep RAM of images loaded.
    fn templates(&self) -> Option<&dyn Templates>;
}

/// A machine whose VMM was started.
#[async_trait]
pub trait Vm: Send + Sync {
    /// Its process.
    fn process(&self) -> ProcessId;

    /// What it does now. Known from the VMM's events; asks it, for at most 500 ms, if that is not known.
    async fn status(&self) -> Result<VmStatus, VmmError>;

    /// Lets the CPUs run; nothing happens if they do.
    async fn resume(&self) -> Result<(), VmmError>;

    /// Stops the CPUs; nothing happens if they stand still.
    async fn pause(&self) -> Result<(), VmmError>;

    /// Ends the VMM in an orderly way (buffers of disks are written) and waits for its end; kills it at a deadline.
    async fn quit(&self) -> Result<(), VmmError>;

    /// Kills the VMM and waits for its end. Killing what has ended is no error.
    async fn kill(&self) -> Result<(), VmmError>;

    /// Waits for the end of the VMM. May be dropped and called again.
    async fn exited(&self) -> ExitReason;

    /// Waits until the guest has powered off while its VMM stays, or the VMM has ended. May be dropped and called
    /// again.
    async fn powered_off(&self);

    /// Connects to the guest's agent. The VMM takes one connection at a time; bytes written before the guest
    /// listens are kept for it. Where saving a machine makes its guest drop its connections, they end at the host
    /// when it is saved: the guest hears nobody before it is dialled again.
    async fn dial(&self, deadline: Duration) -> Result<GuestStream, VmmError>;

    /// Power to save the machine.
    fn snapshots(&self) -> Option<&dyn Snapshots>;

    /// Power to tell where its memory goes.
    fn memory(&self) -> Option<&dyn MemoryReport>;

    /// Power over which pages of its RAM are mapped; none unless it maps the RAM of an image.
    fn mapped_ram(&self) -> Option<&dyn MappedRam>;
}

/// Bytes to and from the guest's agent.
pub type GuestStream = Box<dyn GuestIo>;

/// A two-way byte stream.
pub trait GuestIo: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> GuestIo for T {}

/// What a machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VmStatus {
    /// The VMM is up; the guest has not started, or its state is still being loaded.
    Prelaunch,
    /// The CPUs run.
    Running,
    /// The CPUs stand still.
    Paused,
    /// The guest has powered off.
    Shutdown,
}

/// How a VMM ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReason {
    /// It ended by itself with this exit code.
    Code(i32),
    /// A signal killed it.
    Signal(i32),
    /// It has ended; being an adopted process, nobody knows how.
    Unknown,
}

impl fmt::Display for ExitReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "exit code {code}"),
            Self::Signal(signal) => write!(formatter, "signal {signal}"),
            Self::Unknown => formatter.write_str("exit status unknown"),
        }
    }
}

/// Power of a machine to be saved.
#[async_trait]
pub trait Snapshots: Send + Sync {
    /// Writes device state and RAM of the paused machine into `draft`; where the machine maps an image's RAM, only
    /// the pages that differ, with the image's layers linked. Disks and the manifest are the caller's.
    /// Nothing is made durable here, that is what finishing the draft does. Afterwards the machine may be quit or
    /// resumed, not captured again while it stands still.
    async fn capture(&self, draft: &mut Draft) -> Result<Captured, VmmError>;
}

/// Outcome of a capture.
#[derive(Debug, Clone)]
pub struct Captured {
    /// The machine, for the manifest.
    pub machine: MachineFacts,
    /// Pages written to the new layer.
    pub new_pages: u64,
    /// Layers linked from the image the machine runs on.
    pub linked_layers: usize,
}

/// Power of a machine to report its memory.
#[async_trait]
pub trait MemoryReport: Send + Sync {
    /// Where its memory goes at this moment.
    async fn report(&self) -> Result<MemoryUse, VmmError>;
}

/// Memory of one machine's VMM process, in bytes where nothing else is said.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MemoryUse {
    /// Guest RAM as the guest sees it.
    pub ram_bytes: u64,
    /// Pages of guest RAM that are mapped now and belong to the shared image.
    pub ram_shared_bytes: u64,
    /// Pages of guest RAM that belong to this machine alone, swapped ones included.
    pub ram_private_bytes: u64,
    /// The VMM's own anonymous memory: heap, translated code, device state.
    pub vmm_private_bytes: u64,
    /// Proportional set size of the process.
    pub pss_bytes: u64,
    /// Resident set size of the process.
    pub rss_bytes: u64,
    /// Address space of the process.
    pub vms_bytes: u64,
    /// Page faults of the process since its start, of its CPUs' as well.
    pub page_faults: u64,
    /// CPU time used by the process since its start, in seconds.
    pub cpu_seconds: f64,
}

/// Power of a machine that maps the RAM of an image, over the page tables that it has of that. Works beside whatever
/// else is done with the machine; of one that has ended [`VmmError::Exited`] is told.
#[async_trait]
pub trait MappedRam: Send + Sync {
    /// Pages that it has touched since it was restored, with the neighbours that the kernel maps along; those that were
    /// entered ahead are among them. Ordered and disjoint.
    async fn touched(&self) -> Result<Vec<Run>, VmmError>;

    /// Enters pages ahead of their first touch, in this order, as if they had been read: they stay the image's. Ends
    /// after `limit` with what is done by then. Gives the number of pages that were not there before. What lies
    /// outside of RAM is left out.
    async fn enter(&self, runs: Vec<Run>, limit: Duration) -> Result<u64, VmmError>;
}

/// Power of a driver to keep RAM of images loaded, so that the next fork does not wait for it.
#[async_trait]
pub trait Templates: Send + Sync {
    /// Verifies the image in `image_dir` and loads its RAM. Both stay as long as the hold.
    async fn hold(&self, image_dir: &Path) -> Result<Box<dyn TemplateHold>, VmmError>;
}

/// Keeps RAM of an image loaded until it is dropped.
pub trait TemplateHold: Send + Sync {
    /// Bytes that the loaded RAM occupies, shared by all forks.
    fn resident_bytes(&self) -> u64;
}
