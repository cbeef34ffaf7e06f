//! Who is at the other end of a socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// `SO_PEERPIDFD` of `include/uapi/asm-generic/socket.h` (Linux 6.5); the libc crate does not have it for every target.
const SO_PEERPIDFD: libc::c_int = 77;

/// A pidfd of the process that connected, bound to it whatever happens to its number. `None` before Linux 6.5.
pub(crate) fn peer_pidfd(socket: impl AsFd) -> io::Result<Option<OwnedFd>> {
    let mut raw: libc::c_int = -1;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes one int into `raw`, whose size it is given.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            std::ptr::from_mut(&mut raw).cast(),
            &mut len,
        )
    };
    if result < 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ENOPROTOOPT) => Ok(None),
            _ => Err(error),
        };
    }
    // SAFETY: the kernel has just made this descriptor for us, so nobody else owns it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(raw) }))
}
