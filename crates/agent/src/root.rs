//! From the initrd to the machine's own root file system.
//!
//! One disk is the image (erofs, read-only, shared by many machines), the other the machine's own
//! (ext4). An overlay joins them. The old root's files are deleted, because a RAM file system that is
//! never unmounted keeps its memory for ever.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind, mount_move, mount_remount};
use rustix::process::{chdir, chroot};

use crate::disks::{self, Role};
use crate::identity::{self, IdentityFiles};

/// Mounts every root has.
const KERNEL_MOUNTS: [&str; 3] = ["proc", "sys", "dev"];

/// Mounts what the agent itself needs in the initrd.
pub(crate) fn mount_kernel_file_systems() -> io::Result<()> {
    let plain = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    on("proc", "/proc", "proc", plain, c"")?;
    on("sysfs", "/sys", "sysfs", plain, c"")?;
    on(
        "devtmpfs",
        "/dev",
        "devtmpfs",
        MountFlags::NOSUID,
        c"mode=0755",
    )?;
    on(
        "devpts",
        "/dev/pts",
        "devpts",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        c"gid=5,mode=0620,ptmxmode=0666",
    )?;
    on(
        "tmpfs",
        "/dev/shm",
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        c"mode=1777",
    )?;
    for (name, target) in [
        ("fd", ""),
        ("stdin", "/0"),
        ("stdout", "/1"),
        ("stderr", "/2"),
    ] {
        match symlink(format!("/proc/self/fd{target}"), format!("/dev/{name}")) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn on(
    source: &str,
    target: &str,
    kind: &str,
    flags: MountFlags,
    data: &std::ffi::CStr,
) -> io::Result<()> {
    fs::create_dir_all(target)?;
    match mount(source, target, kind, flags, data) {
        // The kernel, or the initrd, was faster.
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(error) => Err(told(&format!("mount {target}"), error.into())),
    }
}

/// The writable part of a root in use.
#[derive(Debug)]
pub(crate) struct Writable {
    /// The top of the disk's file system, which has no path any more.
    disk: OwnedFd,
}

/// Makes the machine's root the root of this process and of all that follow.
pub(crate) fn switch() -> io::Result<Writable> {
    on(
        &disks::wait_for(Role::Root)?,
        "/image",
        "erofs",
        MountFlags::RDONLY,
        c"",
    )?;
    // Writing the unused inode tables in the background would give every fork pages of its own.
    on(
        &disks::wait_for(Role::Disk)?,
        "/disk",
        "ext4",
        MountFlags::empty(),
        c"noinit_itable,no_prefetch_block_bitmaps",
    )?;
    fs::create_dir_all("/disk/upper")?;
    fs::create_dir_all("/disk/work")?;
    on(
        "overlay",
        "/root",
        "overlay",
        MountFlags::empty(),
        c"lowerdir=/image,upperdir=/disk/upper,workdir=/disk/work",
    )?;
    let disk = rustix::fs::open("/disk", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    for name in KERNEL_MOUNTS {
        let target = Path::new("/root").join(name);
        fs::create_dir_all(&target)?;
        mount_move(Path::new("/").join(name), &target)
            .map_err(|error| told("move mounts", error.into()))?;
    }
    chdir("/root")?;
    delete_initrd()?;
    mount_move(".", "/").map_err(|error| told("move the root", error.into()))?;
    chroot(".")?;
    chdir("/")?;
    Ok(Writable { disk })
}

/// Mounts the files that say which machine this is over their places in the image.
pub(crate) fn mount_identity() -> io::Result<IdentityFiles> {
    let plain = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    on(
        "tmpfs",
        identity::DIRECTORY,
        "tmpfs",
        plain,
        c"mode=0755,size=1m",
    )?;
    fs::create_dir_all("/etc")?;
    let known = fs::read("/etc/hosts").unwrap_or_default();
    let directory = Path::new(identity::DIRECTORY);
    let files = IdentityFiles::create(directory, &String::from_utf8_lossy(&known))?;
    for (name, target) in identity::MOUNTED {
        mount_over(name, target)?;
    }
    Ok(files)
}

/// Makes an empty file beside those of the identity and mounts it over `target`.
pub(crate) fn mount_file(name: &str, target: &str) -> io::Result<fs::File> {
    let file = identity::create(Path::new(identity::DIRECTORY), name)?;
    mount_over(name, target)?;
    Ok(file)
}

fn mount_over(name: &str, target: &str) -> io::Result<()> {
    make_mount_point(target).map_err(|error| told(target, error))?;
    let file = Path::new(identity::DIRECTORY).join(name);
    mount_bind(file, target).map_err(|error| told(target, error.into()))
}

/// Something a file can be mounted on. A link that leads nowhere gives way.
fn make_mount_point(path: &str) -> io::Result<()> {
    if fs::exists(path)? {
        return Ok(());
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    fs::File::create(path).map(drop)
}

impl Writable {
    /// Makes the file systems read-only, so that the disk is clean. Best effort: a journal takes
    /// care of the rest.
    pub(crate) fn seal(&self) {
        use std::os::fd::AsRawFd;
        rustix::fs::sync();
        let _ = mount_remount("/", MountFlags::RDONLY, c"");
        let _ = mount_remount(
            format!("/proc/self/fd/{}", self.disk.as_raw_fd()),
            MountFlags::RDONLY,
            c"",
        );
        rustix::fs::sync();
    }
}

/// Deletes the files of the initrd and steps over everything that is mounted on it.
fn delete_initrd() -> io::Result<()> {
    let device = fs::metadata("/")?.dev();
    let mut directories = vec![Path::new("/").to_path_buf()];
    let mut emptied = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            let metadata = fs::symlink_metadata(&path)?;
            if metadata.dev() != device {
                continue;
            }
            if metadata.is_dir() {
                directories.push(path);
            } else {
                fs::remove_file(&path)?;
            }
        }
        emptied.push(directory);
    }
    for directory in emptied.iter().rev() {
        // Mount points stay.
        let _ = fs::remove_dir(directory);
    }
    Ok(())
}

fn told(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
