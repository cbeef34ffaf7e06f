//! Which pages of a private mapping a process has in its page tables, and which of these it has made its own.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use memory::{PAGE_BYTES, Run, merge_runs};
use rustix::io::Errno;

use super::{Mapping, sys};

const PAGE: u64 = PAGE_BYTES as u64;

/// Pages that are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those that the process has written: they are not the file's any more.
    Own,
    /// All that its page tables hold, or held before they were swapped out.
    Any,
}

/// Bits of an entry of `/proc/<pid>/pagemap`.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FILE_OR_SHARED: u64 = 1 << 61;

/// Entries read at once: 64 Ki of them describe 256 MiB.
const ENTRIES: u64 = 1 << 16;

/// Pages of guest RAM that process `pid` has written since it mapped it, in memory or swapped out.
pub(crate) fn own_pages(pid: i32, mapping: &Mapping) -> io::Result<Vec<Run>> {
    let pagemap = open(pid)?;
    let mut runs = Vec::new();
    for (start, end, first) in mapping.ranges() {
        scan(&pagemap, Which::Own, (start, end), first, &mut runs)?;
    }
    Ok(merge_runs(runs))
}

/// The file that tells of a process's page tables.
pub(super) fn open(pid: i32) -> io::Result<File> {
    File::open(format!("/proc/{pid}/pagemap"))
}

/// Adds the pages between two addresses, of which the lower one is that of page `first`.
pub(super) fn scan(
    pagemap: &File,
    which: Which,
    range: (u64, u64),
    first: u64,
    runs: &mut Vec<Run>,
) -> io::Result<()> {
    let (start, end) = range;
    let before = runs.len();
    let scanned = sys::scan(pagemap, which, start, end, |from, to| {
        runs.push(Run {
            first: first + (from - start) / PAGE,
            count: (to - from) / PAGE,
        });
    });
    match scanned {
        Err(error) if error.raw_os_error() == Some(Errno::NOTTY.raw_os_error()) => {
            runs.truncate(before);
            by_entries(pagemap, which, range, first, runs)
        }
        scanned => scanned,
    }
}

/// For kernels before 6.7: every entry is read.
fn by_entries(
    pagemap: &File,
    which: Which,
    (start, end): (u64, u64),
    first: u64,
    runs: &mut Vec<Run>,
) -> io::Result<()> {
    let pages = (end - start) / PAGE;
    let mut buffer = vec![0; pages.min(ENTRIES) as usize * 8];
    let mut done = 0;
    while done < pages {
        let count = (pages - done).min(ENTRIES);
        let bytes = &mut buffer[..count as usize * 8];
        pagemap.read_exact_at(bytes, (start / PAGE + done) * 8)?;
        collect(bytes, which, first + done, runs);
        done += count;
    }
    Ok(())
}

fn collect(entries: &[u8], which: Which, first: u64, runs: &mut Vec<Run>) {
    for (page, entry) in (first..).zip(entries.as_chunks::<8>().0) {
        let entry = u64::from_ne_bytes(*entry);
        let wanted = which == Which::Any || entry & FILE_OR_SHARED == 0;
        if entry & (PRESENT | SWAPPED) != 0 && wanted {
            match runs.last_mut() {
                Some(last) if last.end() == page => last.count += 1,
                _ => runs.push(Run {
                    first: page,
                    count: 1,
                }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_neighbours_and_skips_pages_of_the_file() {
        let entries = [PRESENT, SWAPPED, PRESENT | FILE_OR_SHARED, 0, PRESENT, 0];
        let bytes: Vec<u8> = entries
            .iter()
            .flat_map(|entry| entry.to_ne_bytes())
            .collect();
        let mut runs = Vec::new();
        collect(&bytes, Which::Own, 10, &mut runs);
        assert_eq!(
            runs,
            [
                Run {
                    first: 10,
                    count: 2
                },
                Run {
                    first: 14,
                    count: 1
                }
            ]
        );
        collect(&bytes[..8], Which::Own, 15, &mut runs);
        assert_eq!(
            runs[1],
            Run {
                first: 14,
                count: 2
            }
        );
        let mut runs = Vec::new();
        collect(&bytes, Which::Any, 10, &mut runs);
        assert_eq!(
            runs,
            [
                Run {
                    first: 10,
                    count: 3
                },
                Run {
                    first: 14,
                    count: 1
                }
            ]
        );
    }

    /// Both ways must agree on a real mapping: this process maps a memfd privately and writes to some pages.
    #[test]
    fn both_ways_find_the_same_pages() {
        let pages = 5000;
        let ram = memory::OwnRam::empty(pages * PAGE).unwrap();
        let pid = i32::try_from(std::process::id()).unwrap();
        let written: Vec<u64> = (0..pages)
            .filter(|page| page % 7 < 2 || *page > 4900)
            .collect();
        let map = sys::tests::PrivateMap::new(&ram, pages * PAGE);
        for page in &written {
            map.write(page * PAGE);
        }
        let file = super::super::FileId::of(&ram).unwrap();
        let mapping = Mapping::find(pid, file, pages * PAGE).unwrap();
        let wanted = merge_runs(
            written
                .iter()
                .map(|page| Run {
                    first: *page,
                    count: 1,
                })
                .collect(),
        );
        assert_eq!(own_pages(pid, &mapping).unwrap(), wanted);
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let (start, end, first) = mapping.ranges().next().unwrap();
        assert_eq!((end - start) / PAGE, pages);
        let mut found = Vec::new();
        by_entries(&pagemap, Which::Own, (start, end), first, &mut found).unwrap();
        assert_eq!(found, wanted);
        // Neighbours of those that are read may come along.
        map.read(3000 * PAGE);
        let (mut slowly, mut found) = (Vec::new(), Vec::new());
        by_entries(&pagemap, Which::Any, (start, end), first, &mut slowly).unwrap();
        scan(&pagemap, Which::Any, (start, end), first, &mut found).unwrap();
        assert_eq!(merge_runs(found.clone()), merge_runs(slowly));
        let has = |page| {
            found
                .iter()
                .any(|run| (run.first..run.end()).contains(&page))
        };
        assert!(has(3000) && has(0) && !has(2502));
    }
}
