//! Descriptors on fixed numbers.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

/// Puts `file` on descriptor `number`, open across exec. `number` must not be in use by anything in this process;
/// the launcher, a fresh process with a single thread, uses numbers far above those it was given.
pub(super) fn place(file: OwnedFd, number: i32) -> io::Result<()> {
    if file.as_raw_fd() == number {
        // Already there, but closed on exec; a duplicate in between lets dup2 clear the flag.
        let moved = file.try_clone()?;
        drop(file);
        return place(moved, number);
    }
    // SAFETY: the number is not owned by anything else in this process (see above), and the value that would
    // close it is given up below before it can be dropped.
    let mut target = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
    rustix::io::dup2(&file, &mut target)?;
    let _ = std::mem::ManuallyDrop::into_inner(target).into_raw_fd();
    Ok(())
}
