//! Memory that stands in for a guest's.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;

use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::Uffd;

/// Anonymous memory of this process, missing pages of which are reported. Any thread may use it; what the threads
/// of a guest do to each other's bytes is their business.
#[derive(Debug)]
pub(crate) struct GuestRam {
    start: *mut u8,
    len: usize,
    uffd: Uffd,
}

// SAFETY: the memory is only reached by raw copies, as a guest's is by its vCPUs; it stays until the value is dropped.
unsafe impl Send for GuestRam {}
// SAFETY: as above.
unsafe impl Sync for GuestRam {}

impl GuestRam {
    pub(crate) fn new(len: usize, page_bytes: usize) -> io::Result<Self> {
        let uffd = Uffd::create()?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = match page_bytes {
            4096 => MapFlags::PRIVATE | MapFlags::NORESERVE,
            _ => MapFlags::PRIVATE | MapFlags::HUGETLB | MapFlags::HUGE_2MB,
        };
        // SAFETY: a fresh mapping at an address that the kernel chooses touches no memory in use.
        let start =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, protection, flags)? };
        uffd.register(start as u64, len as u64)?;
        Ok(Self {
            start: start.cast(),
            len,
            uffd,
        })
    }

    pub(crate) fn address(&self) -> u64 {
        self.start as u64
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn uffd(&self) -> BorrowedFd<'_> {
        self.uffd.as_fd()
    }

    pub(crate) fn read(&self, offset: usize, buffer: &mut [u8]) {
        let start = self.at(offset, buffer.len());
        // SAFETY: the range is inside the mapping, and the buffer is our own.
        unsafe { std::ptr::copy_nonoverlapping(start, buffer.as_mut_ptr(), buffer.len()) };
    }

    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        let start = self.at(offset, bytes.len());
        // SAFETY: the range is inside the mapping, and the source is our own.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len()) };
    }

    pub(crate) fn discard(&self, offset: usize, len: usize) -> io::Result<()> {
        let start = self.at(offset, len);
        // SAFETY: the range is inside the mapping, and its bytes are nobody's.
        unsafe { rustix::mm::madvise(start.cast(), len, Advice::LinuxDontNeed)? };
        Ok(())
    }

    pub(crate) fn unmap(&self, offset: usize, len: usize) -> io::Result<()> {
        let start = self.at(offset, len);
        // SAFETY: only misbehaving stand-ins do this; a later use of the range ends the process, as is wanted.
        unsafe { rustix::mm::munmap(start.cast(), len)? };
        Ok(())
    }

    /// Waits for a page that is reported and was never handed over.
    pub(crate) fn stray(&self) -> io::Result<()> {
        let (protection, flags) = (ProtFlags::READ, MapFlags::PRIVATE);
        // SAFETY: a fresh mapping at an address that the kernel chooses touches no memory in use.
        let start =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), 4096, protection, flags)? };
        self.uffd.register(start as u64, 4096)?;
        // SAFETY: the page has just been mapped for reading, and stays.
        unsafe { start.cast::<u8>().read_volatile() };
        Ok(())
    }

    pub(crate) fn close_uffd(&mut self) -> io::Result<()> {
        let nothing = std::fs::File::open("/dev/null")?;
        self.uffd = Uffd::from(std::os::fd::OwnedFd::from(nothing));
        Ok(())
    }

    pub(crate) fn fill_by_hand(&self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let address = self.at(offset, bytes.len()) as u64;
        let filled = self.uffd.copy(address, &super::Bytes::from(bytes));
        if filled.bytes == bytes.len() as u64 {
            Ok(())
        } else {
            Err(io::Error::other(format!("{filled:?}")))
        }
    }

    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len));
        self.start.wrapping_add(offset)
    }
}

impl Drop for GuestRam {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing borrowed from it is left.
        let _ = unsafe { rustix::mm::munmap(self.start.cast(), self.len) };
    }
}
