//! Runs of guest pages.

/// Size of a guest page as this crate counts them.
pub const PAGE_BYTES: usize = 4096;

/// `count` pages from page number `first` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Run {
    /// Page number in guest RAM (offset divided by [`PAGE_BYTES`]).
    pub first: u64,
    /// Number of pages, at least one.
    pub count: u64,
}

impl Run {
    /// Number of the page after the last one.
    #[must_use]
    pub fn end(self) -> u64 {
        self.first + self.count
    }
}

/// Pages in all runs together.
#[must_use]
pub fn page_count(runs: &[Run]) -> u64 {
    runs.iter().map(|run| run.count).sum()
}

/// The union of any runs: ordered, disjoint, and with neighbours joined.
#[must_use]
pub fn merge_runs(mut runs: Vec<Run>) -> Vec<Run> {
    runs.retain(|run| run.count > 0);
    runs.sort_unstable_by_key(|run| run.first);
    let mut merged: Vec<Run> = Vec::with_capacity(runs.len());
    for run in runs {
        match merged.last_mut() {
            Some(last) if run.first <= last.end() => {
                last.count = last.end().max(run.end()) - last.first;
            }
            _ => merged.push(run),
        }
    }
    merged
}

/// Adds one page at the end of ordered runs.
pub(crate) fn append_page(runs: &mut Vec<Run>, page: u64) {
    match runs.last_mut() {
        Some(last) if last.end() == page => last.count += 1,
        _ => runs.push(Run {
            first: page,
            count: 1,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first: u64, count: u64) -> Run {
        Run { first, count }
    }

    #[test]
    fn merges() {
        let table: &[(&[Run], &[Run])] = &[
            (&[], &[]),
            (&[run(3, 0)], &[]),
            (&[run(3, 2), run(0, 1)], &[run(0, 1), run(3, 2)]),
            (&[run(0, 2), run(2, 2)], &[run(0, 4)]),
            (&[run(0, 10), run(2, 2), run(9, 4)], &[run(0, 13)]),
        ];
        for (given, wanted) in table {
            assert_eq!(merge_runs(given.to_vec()), *wanted, "{given:?}");
        }
    }

    #[test]
    fn appends() {
        let mut runs = Vec::new();
        for page in [1, 2, 3, 7, 9, 10] {
            append_page(&mut runs, page);
        }
        assert_eq!(runs, [run(1, 3), run(7, 1), run(9, 2)]);
        assert_eq!(page_count(&runs), 6);
    }
}
