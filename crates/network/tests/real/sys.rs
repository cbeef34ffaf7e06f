//! System calls that have no safe wrapper.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;

use rustix::thread::UnshareFlags;

/// Moves the calling thread into new namespaces.
pub(crate) fn unshare(flags: UnshareFlags) -> std::io::Result<()> {
    // SAFETY: only `UnshareFlags::FILES` can break code in other threads, and no test asks for it.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(Into::into)
}

/// Opens a TAP of the calling thread's namespace as a VMM does; makes it if it is not there.
pub(crate) fn open_tap(name: &str) -> std::io::Result<File> {
    let tap = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    // SAFETY: a request of zeroes is a valid value of this plain structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the structure is what this request takes, and it lives through the call.
    let done = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if done < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(tap)
}
