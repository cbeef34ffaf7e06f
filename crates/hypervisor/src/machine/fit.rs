//! Whether a plan fits its image and this host.

use std::path::Path;

use memory::{Manifest, Verified};

use crate::{Nic, RestorePlan, VmmError, VmmIdentity};

/// Type of the file system that namespaces are files of (`NSFS_MAGIC` of linux/magic.h).
const NSFS: rustix::fs::FsWord = 0x6e73_6673;

/// Digest of a file, remembered while it does not change.
pub(crate) fn digest(verified: &Verified, path: &Path) -> Result<String, VmmError> {
    verified.sha256(path).map_err(VmmError::io("read", path))
}

/// The network namespace must be there. The launcher would say the same, but only in the log.
pub(crate) fn check_slot(nic: Option<&Nic>) -> Result<(), VmmError> {
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

/// The image must be of such a machine. VMMs themselves check little of this and would run a guest into corruption.
pub(crate) fn check_machine(
    manifest: &Manifest,
    found: &VmmIdentity,
    root: &Path,
    verified: &Verified,
) -> Result<(), VmmError> {
    let wanted = &manifest.machine.vmm;
    let root_sha256 = digest(verified, root)?;
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
pub(crate) fn check_chain(
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
