//! What userfaultfd does, as a trait, so that tests can be the kernel.

use std::io;

use crate::sys::{Bytes, Filled, Uffd};

/// What userfaultfd can do to the memory of a machine.
pub(crate) trait GuestMemory {
    /// Copies to missing pages and wakes.
    fn copy(&self, address: u64, bytes: &Bytes<'_>) -> Filled;
    /// Makes missing pages zero and wakes.
    fn zero(&self, address: u64, len: u64) -> Filled;
    /// Wakes.
    fn wake(&self, address: u64, len: u64) -> io::Result<()>;
    /// Makes missing pages zero from now on, without anybody being asked.
    fn unregister(&self, address: u64, len: u64) -> io::Result<()>;
}

impl GuestMemory for Uffd {
    fn copy(&self, address: u64, bytes: &Bytes<'_>) -> Filled {
        Uffd::copy(self, address, bytes)
    }

    fn zero(&self, address: u64, len: u64) -> Filled {
        Uffd::zero(self, address, len)
    }

    fn wake(&self, address: u64, len: u64) -> io::Result<()> {
        Uffd::wake(self, address, len)
    }

    fn unregister(&self, address: u64, len: u64) -> io::Result<()> {
        Uffd::unregister(self, address, len)
    }
}
