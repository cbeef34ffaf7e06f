//! RAM of one machine alone, in a memfd that nobody else maps.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::MemfdFlags;

use crate::runs::{PAGE_BYTES, Run, merge_runs};
use crate::sparse::for_each_extent;

/// Name under which such RAM shows in `/proc/<pid>/maps`.
const MEMFD_NAME: &str = "coppice-own-ram";

/// Guest RAM that belongs to one machine: a booted one, or a fork that asked for a full copy.
#[derive(Debug)]
pub struct OwnRam {
    fd: OwnedFd,
}

impl OwnRam {
    /// `ram_bytes` of zeros that cost nothing until they are touched.
    pub fn empty(ram_bytes: u64) -> io::Result<Self> {
        let fd = rustix::fs::memfd_create(MEMFD_NAME, MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&fd, ram_bytes)?;
        Ok(Self { fd })
    }
}

impl AsFd for OwnRam {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Runs of pages that hold data in a memfd or sparse file; all others read as zeros.
pub fn data_runs(fd: impl AsFd) -> io::Result<Vec<Run>> {
    let page = PAGE_BYTES as u64;
    let mut runs = Vec::new();
    for_each_extent(fd, |start, end| {
        let first = start / page;
        runs.push(Run {
            first,
            count: end.div_ceil(page) - first,
        });
        Ok(())
    })?;
    Ok(merge_runs(runs))
}
