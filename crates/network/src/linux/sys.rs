//! System calls that have no safe wrapper.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

use netlink_sys::Socket;
use rustix::thread::UnshareFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Moves the calling thread into a new network namespace.
pub(super) fn new_network_namespace() -> io::Result<()> {
    // SAFETY: only `UnshareFlags::FILES` can break code in other threads, and it is not asked for.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.map_err(io::Error::from)
}

/// Has the runtime tell when a socket can be read.
pub(super) fn watched(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: a socket owns its one descriptor and closes it only when it is dropped, which is what it is moved in for.
    unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }
        .map_err(|refused| refused.into_parts().1)
}

/// Makes the TAP `name` in the namespace of the calling thread, or opens it if it is there, and lets it stay when
/// the descriptor is closed.
pub(super) fn make_tap(name: &str) -> io::Result<()> {
    let tap = open_tap(name)?;
    // SAFETY: this request takes a number, and the descriptor is open.
    let done = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETPERSIST, 1) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Opens the TAP `name` in the namespace of the calling thread: one queue, whole Ethernet frames, no headers.
fn open_tap(name: &str) -> io::Result<File> {
    let tap = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    // SAFETY: a request of zeroes is a valid value of this plain structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    // Both flags fit: the field is a signed short of bits.
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the structure is what this request takes, and it lives through the call.
    let done = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(tap)
}
