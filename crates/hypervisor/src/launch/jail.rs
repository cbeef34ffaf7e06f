//! A root file system for a VMM that may not see the host's.
//!
//! It is a file system in memory that exists in the VMM's own mount namespace only, so it ends with the VMM and nothing
//! is left to be unmounted. The program that follows (Firecracker's jailer) makes it the root and drops its rights.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown};
use std::path::Path;

use rustix::mount::{
    MountFlags, MountPropagationFlags, mount, mount_bind, mount_change, mount_remount,
};

use super::spec::{Access, Jail};
use super::sys;

/// Files and directories that a root may have; the launcher and the jailer make some twenty.
const MAX_FILES: u32 = 256;

/// Makes the root and what is in it, in a mount namespace of this process's own.
pub(super) fn build(jail: &Jail) -> io::Result<()> {
    sys::new_mount_namespace()?;
    // What the host unmounts goes away here too; what is mounted here stays here.
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )?;
    let root = &jail.root;
    fs::create_dir_all(root)?;
    // The program owns it, and could fill the host's memory through it.
    let options = CString::new(format!(
        "mode=0700,size={},nr_inodes={MAX_FILES}",
        jail.bytes
    ))?;
    mount(
        "coppice-jail",
        root,
        "tmpfs",
        MountFlags::NOSUID,
        Some(options.as_c_str()),
    )?;
    chown(root, Some(jail.uid), Some(jail.uid))?;
    // Descriptors are named by paths in it. Only the processes of the jail's own user show.
    let proc = root.join("proc");
    DirBuilder::new().mode(0o555).create(&proc)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", &proc, "proc", flags, Some(c"hidepid=2,subset=pid"))?;
    for name in &jail.empty {
        create(&root.join(name), jail.uid)?;
    }
    for file in &jail.files {
        let inside = root.join(&file.name);
        create(&inside, jail.uid)?;
        bind(&file.path, &inside, file.access).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", file.path.display()))
        })?;
    }
    Ok(())
}

fn create(path: &Path, uid: u32) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    chown(path, Some(uid), Some(uid))
}

fn bind(from: &Path, to: &Path, access: Access) -> io::Result<()> {
    mount_bind(from, to)?;
    match access {
        Access::ReadWrite => Ok(()),
        Access::Read => Ok(mount_remount(
            to,
            MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV,
            "",
        )?),
    }
}

/// What the VMM has as standard input.
pub(super) fn standard_input(jail: &Jail) -> io::Result<Option<File>> {
    jail.stdin.as_ref().map(File::open).transpose()
}
