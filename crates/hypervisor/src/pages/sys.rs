//! The `PAGEMAP_SCAN` ioctl (Linux 6.7 and later), from `include/uapi/linux/fs.h`.

use std::fs::File;
use std::io;

use rustix::ioctl::{self, Opcode};

use super::Which;

/// Page is file-backed or shared.
const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;

/// Regions per call; 24 KiB of buffer.
const REGIONS: usize = 1024;

#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

#[repr(C)]
#[derive(Debug, Default)]
struct ScanArgument {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    regions: u64,
    regions_length: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_any_of_mask: u64,
    return_mask: u64,
}

const _: () = assert!(size_of::<ScanArgument>() == 96 && size_of::<PageRegion>() == 24);

/// `_IOWR('f', 16, struct pm_scan_arg)`
const PAGEMAP_SCAN: Opcode = ioctl::opcode::read_write::<ScanArgument>(b'f', 16);

/// Address ranges in `start..end` whose pages are present or swapped, and anonymous if `which` says so. `pagemap` is the
/// open `/proc/<pid>/pagemap`. An error of kind `Unsupported` (or ENOTTY) means an older kernel.
pub(super) fn scan(
    pagemap: &File,
    which: Which,
    start: u64,
    end: u64,
    mut found: impl FnMut(u64, u64),
) -> io::Result<()> {
    let not_of_a_file = match which {
        Which::Own => PAGE_IS_FILE,
        Which::Any => 0,
    };
    let mut regions = [PageRegion::default(); REGIONS];
    let mut at = start;
    while at < end {
        let mut argument = ScanArgument {
            size: size_of::<ScanArgument>() as u64,
            start: at,
            end,
            regions: regions.as_mut_ptr() as u64,
            regions_length: REGIONS as u64,
            category_inverted: not_of_a_file,
            category_mask: not_of_a_file,
            category_any_of_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            return_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            ..ScanArgument::default()
        };
        // SAFETY: the argument has the layout and size that the opcode names, and its `regions` pointer covers
        // `regions_length` writable elements that live until after the call; the kernel writes nothing else.
        let count = unsafe { ioctl::ioctl(pagemap, Scan::new(&mut argument)) }?;
        for region in &regions[..count.min(REGIONS)] {
            found(region.start, region.end);
        }
        if argument.walk_end <= at {
            return Err(io::Error::other("the page scan does not advance"));
        }
        at = argument.walk_end;
    }
    Ok(())
}

/// The ioctl as rustix wants it: the number of regions is its return value.
struct Scan<'a>(&'a mut ScanArgument);

impl<'a> Scan<'a> {
    fn new(argument: &'a mut ScanArgument) -> Self {
        Self(argument)
    }
}

// SAFETY: the opcode reads and writes one `ScanArgument`, which is what the pointer leads to.
unsafe impl ioctl::Ioctl for Scan<'_> {
    type Output = usize;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        PAGEMAP_SCAN
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        std::ptr::from_mut(self.0).cast()
    }

    unsafe fn output_from_ptr(
        out: ioctl::IoctlOutput,
        _: *mut std::ffi::c_void,
    ) -> rustix::io::Result<Self::Output> {
        usize::try_from(out).map_err(|_| rustix::io::Errno::INVAL)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use rustix::mm::{MapFlags, ProtFlags};

    /// A private mapping of this process; stays until the process ends, tests make few.
    pub(crate) struct PrivateMap(*mut u8);

    impl PrivateMap {
        pub(crate) fn new(file: &memory::OwnRam, bytes: u64) -> Self {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            let bytes = usize::try_from(bytes).unwrap();
            // SAFETY: a fresh mapping at an address that the kernel chooses touches no memory in use.
            let start = unsafe {
                rustix::mm::mmap(
                    std::ptr::null_mut(),
                    bytes,
                    protection,
                    MapFlags::PRIVATE,
                    file,
                    0,
                )
                .unwrap()
            };
            Self(start.cast())
        }

        pub(crate) fn write(&self, offset: u64) {
            // SAFETY: callers stay inside the bytes that were mapped, which are writable and never unmapped.
            unsafe {
                self.0
                    .add(usize::try_from(offset).unwrap())
                    .write_volatile(1);
            }
        }

        pub(crate) fn read(&self, offset: u64) -> u8 {
            // SAFETY: as above; the bytes are readable too.
            unsafe { self.0.add(usize::try_from(offset).unwrap()).read_volatile() }
        }
    }
}
