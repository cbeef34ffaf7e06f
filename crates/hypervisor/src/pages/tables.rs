//! The page tables of a process as far as they hold guest RAM: what is in them, and entering more.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use memory::{PAGE_BYTES, Run, merge_runs, page_count};

use super::scan::{self, Which};
use super::{FileId, Mapping};

const PAGE: u64 = PAGE_BYTES as u64;

/// Pages between two looks at the clock: 2 MiB.
const PIECE: u64 = 512;

/// What the kernel enters for one fault on a page of a file, as it is built: the aligned 64 KiB around it
/// (`fault_around_bytes` in mm/memory.c).
const AROUND: u64 = 16;

/// Page tables of one process.
pub(crate) struct PageTables {
    mapping: Mapping,
    pagemap: File,
    memory: File,
}

impl PageTables {
    /// Those of process `pid`, which maps all of `file` as its RAM.
    pub(crate) fn open(pid: i32, file: FileId, ram_bytes: u64) -> io::Result<Self> {
        Ok(Self {
            mapping: Mapping::find(pid, file, ram_bytes)?,
            pagemap: scan::open(pid)?,
            memory: File::open(format!("/proc/{pid}/mem"))?,
        })
    }

    /// All pages that are there.
    pub(crate) fn present(&self) -> io::Result<Vec<Run>> {
        let mut runs = Vec::new();
        for (start, end, first) in self.mapping.ranges() {
            scan::scan(&self.pagemap, Which::Any, (start, end), first, &mut runs)?;
        }
        Ok(merge_runs(runs))
    }

    /// Enters the pages of `runs` in this order, until it is done or `until` has come, and gives the number of those
    /// that were not there before.
    ///
    /// One byte is read through the process's memory for every fault that the process would take. Reading leaves a
    /// page the file's own.
    pub(crate) fn populate(&self, runs: &[Run], until: Instant) -> io::Result<u64> {
        let mut entered = 0;
        for run in runs {
            let mut left = *run;
            while left.count > 0 {
                if Instant::now() >= until {
                    return Ok(entered);
                }
                let piece = Run {
                    first: left.first,
                    count: left.count.min(PIECE),
                };
                let Some((address, count)) = self.mapping.locate(piece) else {
                    // Outside of RAM.
                    break;
                };
                entered += self.populate_piece(address, piece.first, count)?;
                left = Run {
                    first: left.first + count,
                    count: left.count - count,
                };
            }
        }
        Ok(entered)
    }

    fn populate_piece(&self, address: u64, first: u64, count: u64) -> io::Result<u64> {
        let missing = self.missing(address, first, count)?;
        let touch = |page: u64| {
            let at = address + (page - first) * PAGE;
            self.memory.read_exact_at(&mut [0], at)
        };
        for run in &missing {
            let mut page = run.first;
            while page < run.end() {
                touch(page)?;
                page = (page / AROUND + 1) * AROUND;
            }
        }
        let before = page_count(&missing);
        if before == 0 {
            return Ok(0);
        }
        // The kernel may be set to enter fewer at once, and enters no page that it has to make first.
        for run in self.missing(address, first, count)? {
            (run.first..run.end()).try_for_each(touch)?;
        }
        Ok(before)
    }

    /// Pages that are not there, of `count` pages from `first` on, which is at `address`.
    fn missing(&self, address: u64, first: u64, count: u64) -> io::Result<Vec<Run>> {
        let mut there = Vec::new();
        let range = (address, address + count * PAGE);
        scan::scan(&self.pagemap, Which::Any, range, first, &mut there)?;
        let mut missing = Vec::new();
        let mut at = first;
        let end = Run {
            first: first + count,
            count: 0,
        };
        for run in merge_runs(there).into_iter().chain([end]) {
            if run.first > at {
                missing.push(Run {
                    first: at,
                    count: run.first - at,
                });
            }
            at = run.end();
        }
        Ok(missing)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{RamMapping, own_pages, read_smaps, sys};
    use super::*;

    const PAGES: u64 = 4000;

    fn run(first: u64, count: u64) -> Run {
        Run { first, count }
    }

    /// This process maps a memfd privately, as a VMM maps the RAM of an image.
    #[test]
    fn what_is_entered_is_there_and_stays_the_files() {
        let ram = memory::OwnRam::empty(PAGES * PAGE).unwrap();
        let file = FileId::of(&ram).unwrap();
        let bytes = File::options()
            .write(true)
            .open(format!(
                "/proc/self/fd/{}",
                std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&ram))
            ))
            .unwrap();
        // The rest is a hole, whose pages are made when they are touched.
        for page in 0..2000 {
            bytes.write_all_at(&[7; PAGE_BYTES], page * PAGE).unwrap();
        }
        let map = sys::tests::PrivateMap::new(&ram, PAGES * PAGE);
        let pid = i32::try_from(std::process::id()).unwrap();
        let tables = PageTables::open(pid, file, PAGES * PAGE).unwrap();
        assert_eq!(tables.present().unwrap(), []);
        map.write(5 * PAGE);
        let soon = Instant::now() + Duration::from_secs(600);
        let hot = [run(3000, 3), run(0, 40), run(PAGES - 1, 1), run(PAGES, 9)];
        let entered = tables.populate(&hot, soon).unwrap();
        let there = tables.present().unwrap();
        for wanted in &hot[..3] {
            let has = |page| {
                there
                    .iter()
                    .any(|run| (run.first..run.end()).contains(&page))
            };
            assert!(
                (wanted.first..wanted.end()).all(has),
                "{wanted:?}: {there:?}"
            );
        }
        assert!((1..=43).contains(&entered), "{entered}");
        assert_eq!(own_pages(pid, &tables.mapping).unwrap(), [run(5, 1)]);
        let sums = read_smaps(pid, RamMapping::File(file)).unwrap().ram;
        assert_eq!(sums.anonymous, PAGE, "reading copies nothing");
        assert!(sums.rss >= 44 * PAGE);
        assert_eq!((map.read(5 * PAGE), map.read(6 * PAGE)), (1, 7));
        assert_eq!(
            tables.populate(&hot, soon).unwrap(),
            0,
            "all of it is there"
        );
        let over = Instant::now();
        assert_eq!(tables.populate(&[run(500, 500)], over).unwrap(), 0);
        assert_eq!(tables.present().unwrap(), there, "the time was over");
    }
}
