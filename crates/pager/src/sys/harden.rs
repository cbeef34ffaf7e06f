//! Steps out of privileges that the compiler cannot check.

use std::io;

use rustix::thread::UnshareFlags;

/// Closes what was inherited besides the three standard descriptors.
///
/// For a program's first deed: nothing in this process may own a descriptor yet.
pub(crate) fn close_inherited() -> io::Result<()> {
    // SAFETY: as said above, no descriptor that is closed here has an owner.
    if unsafe { libc::close_range(3, libc::c_uint::MAX, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Leaves the network of the host for an empty one.
pub(crate) fn leave_network() -> io::Result<()> {
    // SAFETY: only descriptors and file systems that are unshared can surprise other threads; this is neither.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)? };
    Ok(())
}

/// Becomes user and group `id`, for good, with no further groups. For a process of one thread.
pub(crate) fn become_user(id: u32) -> io::Result<()> {
    // To the kernel this one means: stay who you are.
    if id == u32::MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let check = |result: libc::c_int| {
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    // SAFETY: the list is empty, so its pointer is not followed.
    check(unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: takes its arguments by value.
    check(unsafe { libc::setresgid(id, id, id) })?;
    // SAFETY: takes its arguments by value.
    check(unsafe { libc::setresuid(id, id, id) })
}
