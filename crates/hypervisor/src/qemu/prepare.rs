//! From a plan to everything QEMU is started with. Blocks: images are verified and loaded here.

use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memory::{Image, LoadedRam, MachineFacts, Manifest, OwnRam, Verified};

use super::cmdline::kernel_cmdline;
use super::command::{RAM_FD, RamMap, STATE_FD, Setup, Start};
use super::driver::Shared;
use super::record::{Base, Record};
use crate::launch::{Access, File};
use crate::{LaunchPlan, Nic, RamUse, RestorePlan, VmmError, Wake, nic};

/// RAM sizes are multiples of this; QEMU and kernels round otherwise, each in its own way.
const RAM_UNIT_BYTES: u64 = 1 << 20;

/// Type of the file system that namespaces are files of (`NSFS_MAGIC` of linux/magic.h).
const NSFS: rustix::fs::FsWord = 0x6e73_6673;

/// A machine ready to be spawned.
pub(super) struct Prepared {
    pub(super) run_dir: PathBuf,
    pub(super) setup: Setup,
    pub(super) record: Record,
    pub(super) files: Vec<File>,
    pub(super) ram: Ram,
    /// Layer to be written over the mapped ones before the state is loaded.
    pub(super) patch: Option<(Image, usize)>,
}

/// RAM of the machine; kept until QEMU has it.
pub(super) enum Ram {
    Own(OwnRam),
    Shared(Arc<LoadedRam>),
}

impl Ram {
    /// The memfd as the launcher can open it.
    fn path(&self) -> PathBuf {
        let fd = match self {
            Self::Own(ram) => ram.as_fd().as_raw_fd(),
            Self::Shared(ram) => ram.as_fd().as_raw_fd(),
        };
        PathBuf::from(format!("/proc/{}/fd/{fd}", std::process::id()))
    }

    fn map(&self) -> RamMap {
        match self {
            Self::Own(_) => RamMap::Own,
            Self::Shared(_) => RamMap::CopyOnWrite,
        }
    }
}

/// A machine that boots.
pub(super) fn prepare_launch(shared: &Shared, plan: LaunchPlan) -> Result<Prepared, VmmError> {
    let LaunchPlan {
        name,
        run_dir,
        machine,
        kernel,
        root,
        disk,
        logs,
        nic,
    } = plan;
    if machine.vcpus == 0
        || machine.ram_bytes == 0
        || !machine.ram_bytes.is_multiple_of(RAM_UNIT_BYTES)
    {
        return Err(VmmError::unusable(
            "a machine needs CPUs, and RAM in whole MiB",
        ));
    }
    check_slot(nic.as_ref())?;
    let verified = shared.loader.verified();
    let cmdline = kernel_cmdline(shared.model.accel, shared.tsc_khz, &kernel.cmdline_extra);
    let facts = MachineFacts {
        vmm: shared.identity.clone(),
        vcpus: machine.vcpus,
        ram_bytes: machine.ram_bytes,
        cmdline: cmdline.clone(),
        kernel_sha256: digest(verified, &kernel.kernel)?,
        initrd_sha256: digest(verified, &kernel.initrd)?,
        root_sha256: digest(verified, &root)?,
        nic: nic.as_ref().map(Nic::facts),
    };
    let ram =
        Ram::Own(OwnRam::empty(machine.ram_bytes).map_err(VmmError::io("make RAM for", &run_dir))?);
    let setup = Setup {
        name,
        vcpus: machine.vcpus,
        ram_bytes: machine.ram_bytes,
        ram: ram.map(),
        start: Start::Boot {
            kernel: kernel.kernel,
            initrd: kernel.initrd,
            cmdline,
        },
        root,
        disk,
        console: logs.console,
        app: logs.app,
        nic,
    };
    let record = Record::new(facts, None, logs.vmm);
    Ok(Prepared {
        run_dir,
        setup,
        record,
        files: vec![ram_file(&ram)],
        ram,
        patch: None,
    })
}

/// A machine that continues.
pub(super) fn prepare_restore(shared: &Shared, plan: RestorePlan) -> Result<Prepared, VmmError> {
    let loader = &shared.loader;
    let image = Image::open(&plan.image_dir)?;
    check_machine(image.manifest(), shared, &plan.root)?;
    nic::check_fits(image.manifest().machine.nic.as_ref(), plan.nic.as_ref())?;
    check_slot(plan.nic.as_ref())?;
    image.verify_state_and_disks(loader.verified())?;
    check_chain(image.manifest(), &plan, loader.verified())?;
    let all = image.manifest().layers.len();
    let (ram, layers) = match plan.ram {
        RamUse::Copied => (Ram::Own(loader.copy(&image)?), 0),
        RamUse::Fork => (Ram::Shared(loader.load(&image, all)?), all),
        RamUse::Own => match all
            .checked_sub(1)
            .filter(|below| *below > 0)
            .map(|below| loader.loaded(&image, below))
        {
            Some(Ok(Some(below))) => (Ram::Shared(below), all - 1),
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(None)) | None => (Ram::Shared(loader.load(&image, all)?), all),
        },
    };
    let patch = (layers > 0 && layers < all).then(|| (image.clone(), layers));
    let start = match (plan.wake, &patch) {
        (Wake::Running, None) => Start::Load,
        (Wake::Running, Some(_)) | (Wake::Paused, _) => Start::LoadLater,
    };
    let facts = image.manifest().machine.clone();
    let state = File {
        fd: STATE_FD,
        path: image.state_path(),
        access: Access::Read,
    };
    let setup = Setup {
        name: plan.name,
        vcpus: facts.vcpus,
        ram_bytes: facts.ram_bytes,
        ram: ram.map(),
        start,
        root: plan.root,
        disk: plan.disk,
        console: plan.logs.console,
        app: plan.logs.app,
        nic: plan.nic,
    };
    let base = (layers > 0).then_some(Base {
        image_dir: plan.image_dir,
        layers,
    });
    let record = Record::new(facts, base, plan.logs.vmm);
    Ok(Prepared {
        run_dir: plan.run_dir,
        setup,
        record,
        files: vec![ram_file(&ram), state],
        ram,
        patch,
    })
}

fn ram_file(ram: &Ram) -> File {
    File {
        fd: RAM_FD,
        path: ram.path(),
        access: Access::ReadWrite,
    }
}

fn digest(verified: &Verified, path: &Path) -> Result<String, VmmError> {
    verified.sha256(path).map_err(VmmError::io("read", path))
}

/// The namespace must be there. The launcher would say the same, but only in the log.
fn check_slot(nic: Option<&Nic>) -> Result<(), VmmError> {
    let Some(Nic { netns, .. }) = nic else {
        return Ok(());
    };
    let mounted = rustix::fs::statfs(netns).is_ok_and(|stat| stat.f_type == NSFS);
    if mounted {
        Ok(())
    } else {
        Err(VmmError::unusable(format!(
            "network namespace {} is gone, so the machine cannot be connected",
            netns.display()
        )))
    }
}

/// QEMU itself checks little of this and would run a guest into corruption.
fn check_machine(manifest: &Manifest, shared: &Shared, root: &Path) -> Result<(), VmmError> {
    let (wanted, found) = (&manifest.machine.vmm, &shared.identity);
    let root_sha256 = digest(shared.loader.verified(), root)?;
    let fields = [
        ("vmm.name", &wanted.name, &found.name),
        ("vmm.version", &wanted.version, &found.version),
        ("vmm.accelerator", &wanted.accelerator, &found.accelerator),
        ("vmm.machine", &wanted.machine, &found.machine),
        ("vmm.cpu_model", &wanted.cpu_model, &found.cpu_model),
        ("root_sha256", &manifest.machine.root_sha256, &root_sha256),
    ];
    for (field, wanted, found) in fields {
        expect(field, wanted, found)?;
    }
    Ok(())
}

/// The read-only files of the plan's disk chain must be those of the image; the one on top is new.
fn check_chain(
    manifest: &Manifest,
    plan: &RestorePlan,
    verified: &Verified,
) -> Result<(), VmmError> {
    let Some((_, below)) = plan.disk.split_last() else {
        return Err(VmmError::unusable("a machine needs a disk"));
    };
    if below.len() > manifest.disks.len() {
        return Err(mismatch(
            "disks",
            &manifest.disks.len().to_string(),
            &below.len().to_string(),
        ));
    }
    for (file, record) in below.iter().zip(&manifest.disks) {
        expect(
            "disks.format",
            &format!("{:?}", record.format),
            &format!("{:?}", file.format),
        )?;
        let found = verified
            .sparse_sha256(&file.path)
            .map_err(VmmError::io("read", &file.path))?;
        expect("disks.sparse_sha256", &record.sparse_sha256, &found)?;
    }
    Ok(())
}

fn expect(field: &'static str, wanted: &str, found: &str) -> Result<(), VmmError> {
    if wanted == found {
        Ok(())
    } else {
        Err(mismatch(field, wanted, found))
    }
}

fn mismatch(field: &'static str, wanted: &str, found: &str) -> VmmError {
    VmmError::Mismatch {
        field,
        wanted: wanted.to_owned(),
        found: found.to_owned(),
    }
}
