//! Reading and writing guest pages.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use memory::{PAGE_BYTES, PageSource, Run, merge_runs};

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

/// RAM in two files: pages of the upper one hide those of the lower.
pub(crate) struct Overlay {
    below: FileSource,
    above: FileSource,
    runs: Vec<Run>,
}

impl Overlay {
    pub(crate) fn new(below: FileSource, above: FileSource) -> Self {
        let runs = merge_runs(below.runs.iter().chain(&above.runs).copied().collect());
        Self { below, above, runs }
    }
}

impl PageSource for Overlay {
    fn runs(&self) -> &[Run] {
        &self.runs
    }

    fn read(&self, first: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.below.read(first, buffer)?;
        let end = first + buffer.len() as u64 / PAGE;
        let overlapping = self.above.runs.partition_point(|run| run.end() <= first);
        for run in &self.above.runs[overlapping..] {
            let (from, to) = (run.first.max(first), run.end().min(end));
            if from >= to {
                break;
            }
            // Both lie inside the buffer, so the products fit.
            let range = (from - first) as usize * PAGE_BYTES..(to - first) as usize * PAGE_BYTES;
            self.above.read(from, &mut buffer[range])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ram(pages: &[u64], byte: u8) -> FileSource {
        let file = tempfile::tempfile().unwrap();
        file.set_len(16 * PAGE).unwrap();
        for page in pages {
            file.write_all_at(&[byte; PAGE_BYTES], page * PAGE).unwrap();
        }
        FileSource::open(file).unwrap()
    }

    #[test]
    fn pages_above_hide_those_below_and_all_are_named() {
        let overlay = Overlay::new(ram(&[1, 2, 3, 8], b'b'), ram(&[2, 5, 8, 9], b'a'));
        let named: Vec<u64> = overlay
            .runs()
            .iter()
            .flat_map(|run| run.first..run.end())
            .collect();
        assert_eq!(named, [1, 2, 3, 5, 8, 9]);
        for window in [1..10_u64, 2..3, 3..6, 0..16] {
            let mut buffer = vec![0; (window.end - window.start) as usize * PAGE_BYTES];
            overlay.read(window.start, &mut buffer).unwrap();
            let found: Vec<u8> = buffer.chunks(PAGE_BYTES).map(|page| page[77]).collect();
            let wanted = [
                0, b'b', b'a', b'b', 0, b'a', 0, 0, b'a', b'a', 0, 0, 0, 0, 0, 0,
            ];
            assert_eq!(found, wanted[window.start as usize..window.end as usize]);
        }
    }
}
