//! Reading and writing guest pages.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use memory::{PAGE_BYTES, PageSource, Run};

use super::Mapping;

const PAGE: u64 = PAGE_BYTES as u64;

/// Guest RAM through the memory of the process that maps it.
pub(crate) struct ProcessMemory {
    memory: File,
    mapping: Mapping,
    runs: Vec<Run>,
}

impl ProcessMemory {
    /// The pages of `runs`, for reading.
    pub(crate) fn open(pid: i32, mapping: Mapping, runs: Vec<Run>) -> io::Result<Self> {
        Ok(Self {
            memory: File::open(format!("/proc/{pid}/mem"))?,
            mapping,
            runs,
        })
    }

    /// All of RAM, for writing.
    pub(crate) fn writable(pid: i32, mapping: Mapping) -> io::Result<Self> {
        let memory = OpenOptions::new()
            .read(true)
            .write(true)
            .open(format!("/proc/{pid}/mem"))?;
        Ok(Self {
            memory,
            mapping,
            runs: Vec::new(),
        })
    }

    /// Writes whole pages from page `first` on. In a private mapping they become the process's own.
    pub(crate) fn write(&self, first: u64, bytes: &[u8]) -> io::Result<()> {
        self.pieces(first, bytes.len(), |address, range| {
            self.memory.write_all_at(&bytes[range], address)
        })
    }

    fn pieces(
        &self,
        first: u64,
        length: usize,
        mut each: impl FnMut(u64, std::ops::Range<usize>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut run = Run {
            first,
            count: length as u64 / PAGE,
        };
        let mut at = 0;
        while run.count > 0 {
            let located = self.mapping.locate(run);
            let (address, count) =
                located.ok_or_else(|| io::Error::other("page outside guest RAM"))?;
            // At most `length` bytes, so the product fits.
            let size = count as usize * PAGE_BYTES;
            each(address, at..at + size)?;
            at += size;
            run = Run {
                first: run.first + count,
                count: run.count - count,
            };
        }
        Ok(())
    }
}

impl PageSource for ProcessMemory {
    fn runs(&self) -> &[Run] {
        &self.runs
    }

    fn read(&self, first: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.pieces(first, buffer.len(), |address, range| {
            self.memory.read_exact_at(&mut buffer[range], address)
        })
    }
}

/// Guest RAM through the memfd that backs all of it.
pub(crate) struct FileSource {
    file: File,
    runs: Vec<Run>,
}

impl FileSource {
    /// The pages of `file` that hold data.
    pub(crate) fn open(file: File) -> io::Result<Self> {
        let runs = memory::data_runs(&file)?;
        Ok(Self { file, runs })
    }
}

impl PageSource for FileSource {
    fn runs(&self) -> &[Run] {
        &self.runs
    }

    fn read(&self, first: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, first * PAGE)
    }
}
