//! From a plan to everything Firecracker is started with. Blocks: images are verified and loaded here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use memory::{DiskFormat, Image, MachineFacts, OwnRam};

use super::calls::{self, Call, Place, RamFrom};
use super::driver::Shared;
use super::layout::{INITRD, KERNEL, RAM_FD, SAVED_RAM_FD, STATE_FD};
use crate::launch::{Access, File};
use crate::machine::{Base, Ram, Record, check_chain, check_machine, check_slot, digest};
use crate::{DiskFile, LaunchPlan, MemoryBackend, Nic, RamUse, RestorePlan, VmmError, nic};

/// Firecracker counts RAM in these.
const RAM_UNIT_BYTES: u64 = 1 << 20;

/// A machine ready to be spawned.
pub(super) struct Prepared {
    pub(super) name: String,
    pub(super) run_dir: PathBuf,
    pub(super) root: PathBuf,
    pub(super) disk: PathBuf,
    /// What it boots, or the state it continues with.
    pub(super) kernel: Option<PathBuf>,
    pub(super) initrd: Option<PathBuf>,
    pub(super) state: Option<PathBuf>,
    /// Socket of the pager.
    pub(super) pager: Option<PathBuf>,
    pub(super) nic: Option<Nic>,
    pub(super) console: PathBuf,
    pub(super) app: PathBuf,
    pub(super) files: Vec<File>,
    pub(super) calls: Vec<Call>,
    pub(super) record: Record,
    /// RAM that Firecracker maps; none if it makes its own.
    pub(super) ram: Option<Ram>,
    pub(super) saved: Ram,
}

/// A machine that boots.
pub(super) fn prepare_launch(shared: &Shared, plan: LaunchPlan) -> Result<Prepared, VmmError> {
    let machine = &plan.machine;
    if machine.vcpus == 0
        || machine.ram_bytes == 0
        || !machine.ram_bytes.is_multiple_of(RAM_UNIT_BYTES)
    {
        return Err(VmmError::unusable(
            "a machine needs CPUs, and RAM in whole MiB",
        ));
    }
    let disk = only_disk(plan.disk)?;
    check_slot(plan.nic.as_ref())?;
    let verified = shared.loader.verified();
    let cmdline = calls::cmdline(&plan.kernel.cmdline_extra);
    let facts = MachineFacts {
        vmm: shared.identity.clone(),
        vcpus: machine.vcpus,
        ram_bytes: machine.ram_bytes,
        cmdline: cmdline.clone(),
        kernel_sha256: digest(verified, &plan.kernel.kernel)?,
        initrd_sha256: digest(verified, &plan.kernel.initrd)?,
        root_sha256: digest(verified, &plan.root)?,
        nic: plan.nic.as_ref().map(Nic::facts),
    };
    let (kernel, initrd) = match shared.place() {
        Place::Host => (plan.kernel.kernel.as_path(), plan.kernel.initrd.as_path()),
        Place::Jail => (Path::new(KERNEL), Path::new(INITRD)),
    };
    let calls = calls::boot(machine, kernel, initrd, &cmdline, plan.nic.as_ref());
    let saved = saved_ram(machine.ram_bytes, &plan.run_dir)?;
    Ok(Prepared {
        name: plan.name,
        files: vec![descriptor(SAVED_RAM_FD, saved.path(), Access::ReadWrite)],
        run_dir: plan.run_dir,
        root: plan.root,
        disk,
        kernel: Some(plan.kernel.kernel),
        initrd: Some(plan.kernel.initrd),
        state: None,
        pager: None,
        nic: plan.nic,
        console: plan.logs.console,
        app: plan.logs.app,
        calls,
        record: Record::new(facts, None, plan.logs.vmm),
        ram: None,
        saved,
    })
}

/// A machine that continues.
pub(super) fn prepare_restore(shared: &Shared, plan: RestorePlan) -> Result<Prepared, VmmError> {
    let loader = &shared.loader;
    let image = Image::open(&plan.image_dir)?;
    let verified = loader.verified();
    check_machine(image.manifest(), &shared.identity, &plan.root, verified)?;
    nic::check_fits(image.manifest().machine.nic.as_ref(), plan.nic.as_ref())?;
    check_slot(plan.nic.as_ref())?;
    image.verify_state_and_disks(verified)?;
    check_chain(image.manifest(), &plan, verified)?;
    let disk = only_disk(plan.disk)?;
    let layers = image.manifest().layers.len();
    let facts = image.manifest().machine.clone();
    let (ram, pager) = match (plan.memory, plan.ram) {
        (MemoryBackend::File, RamUse::Copied) => (Some(Ram::Own(loader.copy(&image)?)), None),
        // Nothing can be written over the layers below before the state is loaded: both are one call. So a machine
        // that wakes from its own standby maps all layers, as a fork does.
        (MemoryBackend::File, RamUse::Fork | RamUse::Own) => {
            (Some(Ram::Shared(loader.load(&image, layers)?)), None)
        }
        (MemoryBackend::Pager { socket }, RamUse::Fork | RamUse::Own) => (None, Some(socket)),
        (MemoryBackend::Pager { .. }, RamUse::Copied) => {
            return Err(VmmError::unusable(
                "a machine with a copy of all memory takes it from files, not from a pager",
            ));
        }
    };
    let base = match plan.ram {
        RamUse::Copied => None,
        RamUse::Fork | RamUse::Own => Some(Base {
            image_dir: plan.image_dir,
            layers,
        }),
    };
    let from = match pager {
        Some(_) => RamFrom::Pager,
        None => RamFrom::Descriptor,
    };
    let calls = vec![calls::load(
        shared.place(),
        shared.version,
        from,
        plan.wake,
        plan.nic.as_ref(),
    )];
    let saved = saved_ram(facts.ram_bytes, &plan.run_dir)?;
    let mut files = vec![
        descriptor(STATE_FD, image.state_path(), Access::Read),
        descriptor(SAVED_RAM_FD, saved.path(), Access::ReadWrite),
    ];
    files.extend(
        ram.as_ref()
            .map(|ram| descriptor(RAM_FD, ram.path(), Access::Read)),
    );
    Ok(Prepared {
        name: plan.name,
        run_dir: plan.run_dir,
        root: plan.root,
        disk,
        kernel: None,
        initrd: None,
        state: Some(image.state_path()),
        pager,
        nic: plan.nic,
        console: plan.logs.console,
        app: plan.logs.app,
        files,
        calls,
        record: Record::new(facts, base, plan.logs.vmm),
        ram,
        saved,
    })
}

/// Firecracker writes to whole disks and knows no chains.
fn only_disk(mut chain: Vec<DiskFile>) -> Result<PathBuf, VmmError> {
    match (chain.pop(), chain.is_empty()) {
        (
            Some(DiskFile {
                path,
                format: DiskFormat::Raw,
            }),
            true,
        ) => Ok(path),
        (None, _) => Err(VmmError::unusable("a machine needs a disk")),
        (Some(_), _) => Err(VmmError::unusable(
            "Firecracker needs its disk as one raw file; overlays over other files are for QEMU",
        )),
    }
}

/// What Firecracker saves goes here. The machine keeps it: a later diff is written over what an earlier one held.
fn saved_ram(ram_bytes: u64, run_dir: &Path) -> Result<Ram, VmmError> {
    let ram = OwnRam::empty(ram_bytes).map_err(VmmError::io("make RAM for", run_dir))?;
    Ok(Ram::Own(ram))
}

fn descriptor(fd: i32, path: PathBuf, access: Access) -> File {
    File { fd, path, access }
}

impl Prepared {
    /// RAM of the image, if the machine maps it.
    pub(super) fn loaded(&self) -> Option<Arc<memory::LoadedRam>> {
        match &self.ram {
            Some(Ram::Shared(loaded)) => Some(Arc::clone(loaded)),
            Some(Ram::Own(_)) | None => None,
        }
    }
}
