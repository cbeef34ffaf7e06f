//! Shared memory, and files as sources of copies.

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::AtomicU64;

use rustix::mm::{Advice, MapFlags, ProtFlags};

/// A mapping that is undone when dropped.
#[derive(Debug)]
struct Mapping {
    start: *mut libc::c_void,
    len: usize,
}

// SAFETY: the memory belongs to this value alone, and what is done with it is up to the two types below.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(fd: impl AsFd, len: usize, protection: ProtFlags) -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address that the kernel chooses touches no memory in use.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                protection,
                MapFlags::SHARED,
                fd,
                0,
            )?
        };
        Ok(Self { start, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this value made the mapping, and nothing borrowed from it is left.
        let _ = unsafe { rustix::mm::munmap(self.start, self.len) };
    }
}

/// Words in a memfd that other processes map as well.
#[derive(Debug)]
pub(crate) struct SharedWords(Mapping);

impl SharedWords {
    /// Maps `words` words of `fd`, which must be that long and sealed against shrinking: a shorter file would end
    /// this process at the first access.
    pub(crate) fn map(fd: &OwnedFd, words: usize) -> io::Result<Self> {
        Ok(Self(Mapping::new(
            fd,
            words * 8,
            ProtFlags::READ | ProtFlags::WRITE,
        )?))
    }

    /// The words.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is readable, writable, aligned to a page and this long; other processes may change
        // it any time, which atomics allow; it lives as long as the borrow of `self`.
        unsafe { std::slice::from_raw_parts(self.0.start.cast(), self.0.len / 8) }
    }

    /// Keeps the first `bytes` in memory, so that the kernel can write to them without a fault.
    pub(crate) fn lock(&self, bytes: usize) -> io::Result<()> {
        // SAFETY: the range is inside this mapping.
        unsafe { rustix::mm::mlock(self.0.start, bytes.min(self.0.len))? };
        Ok(())
    }
}

/// A file that is only ever read by the kernel, as the source of a copy. So a file that is cut or cannot be read
/// is an error of that copy and no signal.
#[derive(Debug)]
pub(crate) struct FileMap(Option<Mapping>);

impl FileMap {
    /// Maps `len` bytes of `file` for reading.
    pub(crate) fn map(file: &File, len: u64) -> io::Result<Self> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        if len == 0 {
            return Ok(Self(None));
        }
        Ok(Self(Some(Mapping::new(file, len, ProtFlags::READ)?)))
    }

    /// Makes pages that are in the page cache reachable without a fault for each. Failing costs only time.
    pub(crate) fn populate(&self, offset: u64, len: usize) {
        if let Some((start, len)) = self.span(offset, len) {
            // SAFETY: the range is inside this mapping, and reading ahead changes nothing in it.
            let _ = unsafe { rustix::mm::madvise(start, len, Advice::LinuxPopulateRead) };
        }
    }

    /// A range of the file as the source of a copy; `None` if it is not inside.
    pub(crate) fn bytes(&self, offset: u64, len: usize) -> Option<Bytes<'_>> {
        let (start, len) = self.span(offset, len)?;
        Some(Bytes {
            address: start as u64,
            len,
            source: PhantomData,
        })
    }

    fn span(&self, offset: u64, len: usize) -> Option<(*mut libc::c_void, usize)> {
        let mapping = self.0.as_ref()?;
        let offset = usize::try_from(offset).ok()?;
        if offset.checked_add(len)? > mapping.len {
            return None;
        }
        Some((mapping.start.wrapping_byte_add(offset), len))
    }
}

/// Bytes to copy. They need not be readable: the kernel finds out.
#[derive(Debug)]
pub(crate) struct Bytes<'a> {
    address: u64,
    len: usize,
    source: PhantomData<&'a [u8]>,
}

impl<'a> Bytes<'a> {
    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What remains after the first `count` bytes.
    pub(crate) fn after(&self, count: usize) -> Self {
        let count = count.min(self.len);
        Self {
            address: self.address + count as u64,
            len: self.len - count,
            source: PhantomData,
        }
    }

    /// A copy of the bytes, for stand-ins of the kernel that copy themselves.
    #[cfg(test)]
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        // SAFETY: tests make these from slices and from mappings of files that nobody cuts; both live as long as this
        // value.
        unsafe { std::slice::from_raw_parts(self.address as *const u8, self.len) }.to_vec()
    }
}

impl<'a> From<&'a [u8]> for Bytes<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self {
            address: bytes.as_ptr() as u64,
            len: bytes.len(),
            source: PhantomData,
        }
    }
}
