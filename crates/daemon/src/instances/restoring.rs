//! Starting a VMM on a memory image, and the first words with the guest in it.

use std::path::PathBuf;
use std::sync::Arc;

use hypervisor::{Driver, MemoryBackend, Nic, RamUse, RestorePlan, Vm, VmmError, Wake};
use memory::Image;
use model::{Backend, ImageId, InstanceId};
use protocol::Identity;

use super::actor::Up;
use super::blocking::blocking_op;
use super::context::RESUME_DEADLINE;
use super::layout::InstanceDir;
use super::pagers::{HotOrder, Mapped, Paged, Pagers, Paging};
use super::reaching::reach;
use super::{OpError, chain, disk};

/// What the RAM of a machine that wakes comes from.
#[derive(Debug)]
pub(super) struct Source {
    pub backend: Backend,
    /// What it is to have of its template's hot pages.
    pub hot: Option<HotOrder>,
}

impl Source {
    /// The image's files.
    pub(super) const FILE: Self = Self {
        backend: Backend::File,
        hot: None,
    };
}

/// What a machine is restored from.
pub(super) struct Restoring {
    pub id: InstanceId,
    /// Its directory, which holds the image.
    pub dir: InstanceDir,
    pub image: ImageId,
    pub root: PathBuf,
    pub ram: RamUse,
    pub source: Source,
    pub nic: Option<Nic>,
    /// Of the VMM that the image was made by.
    pub driver: Arc<dyn Driver>,
}

/// A machine that has woken.
pub(super) struct Restored {
    pub vm: Arc<dyn Vm>,
    /// It gets its memory from a pager.
    pub paged: Option<Arc<Paged>>,
    /// It maps its template's memory.
    pub mapped: Option<Arc<Mapped>>,
}

impl Restoring {
    /// Makes the disk chain and starts the VMM on the image.
    pub(super) async fn restore(mut self, pagers: &Arc<Pagers>) -> Result<Restored, OpError> {
        let source = std::mem::replace(&mut self.source, Source::FILE);
        match source.backend {
            Backend::File => {
                let vm = self.start(MemoryBackend::File).await?;
                let mapped = source.hot.and_then(|order| pagers.map(&vm, order));
                Ok(Restored {
                    vm,
                    paged: None,
                    mapped,
                })
            }
            Backend::Uffd => {
                let socket = self.dir.pager_socket();
                let paging = Paging {
                    vm: self.id.clone(),
                    image: self.image.clone(),
                    image_dir: self.dir.image(&self.image),
                    socket: socket.clone(),
                    hot: source.hot,
                };
                let start = self.start(MemoryBackend::Pager { socket });
                let (vm, paged) = pagers.attach(paging, start).await?;
                Ok(Restored {
                    vm,
                    paged: Some(paged),
                    mapped: None,
                })
            }
        }
    }

    async fn start(self, memory: MemoryBackend) -> Result<Arc<dyn Vm>, OpError> {
        let dir = self.dir.clone();
        let image_dir = self.dir.image(&self.image);
        let durable = self.dir.clone();
        let vmm = self.driver.identity().name.clone();
        let (image_dir, disk) = blocking_op(move || {
            let image = Image::open(&image_dir)?;
            check_vmm(&image, &vmm)?;
            disk::from_image(&dir, &image)?;
            Ok((image_dir, disk::chain(&dir)?))
        })
        .await?;
        let plan = RestorePlan {
            name: self.id.to_string(),
            run_dir: self.dir.run(),
            image_dir,
            root: self.root,
            disk,
            logs: self.dir.log_files(),
            nic: self.nic,
            ram: self.ram,
            memory,
            wake: Wake::Running,
        };
        // The new chain holds what the guest will write. It gets durable beside the start of
        // the VMM, which takes longer; a machine whose disk may be lost is not announced.
        let (vm, durable) = tokio::join!(
            self.driver.restore(plan),
            blocking_op(move || disk::make_durable(&durable))
        );
        let vm = vm?;
        if let Err(error) = durable {
            vm.kill().await?;
            return Err(error);
        }
        Ok(vm)
    }
}

/// Memory fits only the VMM that wrote it. Nothing is made of an image of another one, whatever
/// brought it into the instance's directory.
pub(super) fn check_vmm(image: &Image, vmm: &str) -> Result<(), OpError> {
    let made_by = &image.manifest().machine.vmm.name;
    if made_by == vmm {
        return Ok(());
    }
    Err(VmmError::Mismatch {
        field: "vmm.name",
        wanted: made_by.clone(),
        found: vmm.to_owned(),
    }
    .into())
}

/// Connects, has the guest take its identity, and hears that it is ready.
pub(super) async fn resume_guest(vm: &Arc<dyn Vm>, identity: Identity) -> Result<Up, OpError> {
    let has_hook = identity.post_fork.is_some();
    let (link, events) = reach(vm.as_ref(), RESUME_DEADLINE).await?;
    let resumed = link.resume(identity, RESUME_DEADLINE).await;
    resumed.map_err(|error| not_resumed(error, has_hook))?;
    Ok(Up { link, events })
}

/// Why a guest did not become the machine it was told to be.
pub(super) fn not_resumed(error: guest::LinkError, has_hook: bool) -> OpError {
    if has_hook && error.failure().is_some() {
        OpError::PostFork(chain(&error))
    } else {
        error.into()
    }
}
