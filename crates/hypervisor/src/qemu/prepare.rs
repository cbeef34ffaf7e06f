//! From a plan to everything QEMU is started with. Blocks: images are verified and loaded here.

use std::path::PathBuf;

use memory::{Image, MachineFacts, OwnRam};

use super::cmdline::kernel_cmdline;
use super::command::{RAM_FD, RamMap, STATE_FD, Setup, Start};
use super::driver::Shared;
use crate::launch::{Access, File};
use crate::machine::{Base, Ram, Record, check_chain, check_machine, check_slot, digest};
use crate::{LaunchPlan, MemoryBackend, Nic, RamUse, RestorePlan, VmmError, Wake, nic};

/// RAM sizes are multiples of this; QEMU and kernels round otherwise, each in its own way.
const RAM_UNIT_BYTES: u64 = 1 << 20;

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
        ram: map(&ram),
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
    if plan.memory != MemoryBackend::File {
        return Err(VmmError::unusable(
            "QEMU maps memory from files; a pager serves Firecracker only",
        ));
    }
    let loader = &shared.loader;
    let image = Image::open(&plan.image_dir)?;
    check_machine(
        image.manifest(),
        &shared.identity,
        &plan.root,
        loader.verified(),
    )?;
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
        ram: map(&ram),
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

fn map(ram: &Ram) -> RamMap {
    match ram {
        Ram::Own(_) => RamMap::Own,
        Ram::Shared(_) => RamMap::CopyOnWrite,
    }
}
