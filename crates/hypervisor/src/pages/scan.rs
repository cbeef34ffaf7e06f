//! Which pages of a private mapping a process has made its own.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use memory::{PAGE_BYTES, Run, merge_runs};
use rustix::io::Errno;

use super::{Mapping, sys};

const PAGE: u64 = PAGE_BYTES as u64;

/// Bits of an entry of `/proc/<pid>/pagemap`.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FILE_OR_SHARED: u64 = 1 << 61;

/// Entries read at once: 64 Ki of them describe 256 MiB.
const ENTRIES: u64 = 1 << 16;

/// Pages of guest RAM that process `pid` has written since it mapped it, in memory or swapped out.
pub(crate) fn own_pages(pid: i32, mapping: &Mapping) -> io::Result<Vec<Run>> {
    let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
    match by_scan(&pagemap, mapping) {
        Err(error) if error.raw_os_error() == Some(Errno::NOTTY.raw_os_error()) => {
            by_entries(&pagemap, mapping)
        }
        scanned => scanned,
    }
}

fn by_scan(pagemap: &File, mapping: &Mapping) -> io::Result<Vec<Run>> {
    let mut runs = Vec::new();
    for (start, end, first) in mapping.ranges() {
        sys::scan_anonymous(pagemap, start, end, |from, to| {
            runs.push(Run {
                first: first + (from - start) / PAGE,
                count: (to - from) / PAGE,
            });
        })?;
    }
    Ok(merge_runs(runs))
}

/// For kernels before 6.7: every entry is read.
fn by_entries(pagemap: &File, mapping: &Mapping) -> io::Result<Vec<Run>> {
    let mut runs = Vec::new();
    let mut buffer = vec![0; ENTRIES as usize * 8];
    for (start, end, first) in mapping.ranges() {
        let pages = (end - start) / PAGE;
        let mut done = 0;
        while done < pages {
            let count = (pages - done).min(ENTRIES);
            let bytes = &mut buffer[..count as usize * 8];
            pagemap.read_exact_at(bytes, (start / PAGE + done) * 8)?;
            collect(bytes, first + done, &mut runs);
            done += count;
        }
    }
    Ok(merge_runs(runs))
}

fn collect(entries: &[u8], first: u64, runs: &mut Vec<Run>) {
    for (page, entry) in (first..).zip(entries.as_chunks::<8>().0) {
        let entry = u64::from_ne_bytes(*entry);
        if entry & (PRESENT | SWAPPED) != 0 && entry & FILE_OR_SHARED == 0 {
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
        collect(&bytes, 10, &mut runs);
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
        collect(&bytes[..8], 15, &mut runs);
        assert_eq!(
            runs[1],
            Run {
                first: 14,
                count: 2
            }
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
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        assert_eq!(by_entries(&pagemap, &mapping).unwrap(), wanted);
        assert_eq!(own_pages(pid, &mapping).unwrap(), wanted);
    }
}
