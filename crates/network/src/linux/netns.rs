//! Network namespaces that outlive the process: files that a namespace is mounted on.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;

use rustix::mount::UnmountFlags;
use rustix::thread::LinkNameSpaceType;

use super::sys;

/// `NSFS_MAGIC`: file system of namespaces.
const NSFS: i64 = 0x6e73_6673;

/// Makes a namespace, mounts it on `path`, and runs `setup` in it.
pub(super) fn make<T: Send>(
    path: &Path,
    setup: impl FnOnce(&File) -> io::Result<T> + Send,
) -> io::Result<T> {
    on_thread(|| {
        sys::new_network_namespace()?;
        let own = File::open("/proc/thread-self/ns/net")?;
        File::create(path)?;
        // Not `/proc/self`: that is the main thread.
        rustix::mount::mount_bind("/proc/thread-self/ns/net", path)?;
        setup(&own)
    })
}

/// Runs `job` in the namespace of `path`.
pub(super) fn within<T: Send>(
    path: &Path,
    job: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let file = File::open(path)?;
    on_thread(|| {
        rustix::thread::move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        job()
    })
}

/// Whether a namespace is mounted on `path`.
pub(super) fn exists(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type == NSFS)
}

/// Removes the file and lets go of the namespace. It is no error if it is not there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    // More than one mount is there when a daemon died between mounting and noticing.
    while exists(path) {
        rustix::mount::unmount(path, UnmountFlags::DETACH)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A thread of its own, since a thread keeps the namespace that it moved to.
fn on_thread<T: Send>(job: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, job)?
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
    })
}
