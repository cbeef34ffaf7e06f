//! One bit for each page, in words that other processes may see.

use std::sync::atomic::{AtomicU64, Ordering};

use memory::Run;

/// Bits in a word.
const BITS: u64 = 64;

/// Words that `pages` bits need.
pub(crate) fn words_for(pages: u64) -> usize {
    // A word for 64 pages: guests that fill the address space still fit.
    pages.div_ceil(BITS) as usize
}

/// A view of a bitmap. Page numbers must lie inside it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bitmap<'a>(&'a [AtomicU64]);

impl<'a> Bitmap<'a> {
    pub(crate) fn new(words: &'a [AtomicU64]) -> Self {
        Self(words)
    }

    pub(crate) fn get(self, page: u64) -> bool {
        self.0[(page / BITS) as usize].load(Ordering::Acquire) & (1 << (page % BITS)) != 0
    }

    pub(crate) fn set(self, run: Run) {
        for_each_mask(run, |word, mask| {
            self.0[word].fetch_or(mask, Ordering::AcqRel);
        });
    }

    pub(crate) fn clear(self, run: Run) {
        for_each_mask(run, |word, mask| {
            self.0[word].fetch_and(!mask, Ordering::AcqRel);
        });
    }

    /// Pieces of `run` in which all bits are equal, in order, with that bit.
    pub(crate) fn pieces(self, run: Run) -> impl Iterator<Item = (Run, bool)> + 'a {
        let mut first = run.first;
        std::iter::from_fn(move || {
            if first >= run.end() {
                return None;
            }
            let bit = self.get(first);
            let mut end = first + 1;
            while end < run.end() && self.get(end) == bit {
                end += 1;
            }
            let piece = Run {
                first,
                count: end - first,
            };
            first = end;
            Some((piece, bit))
        })
    }
}

fn for_each_mask(run: Run, mut visit: impl FnMut(usize, u64)) {
    let mut page = run.first;
    while page < run.end() {
        let bit = page % BITS;
        let count = (BITS - bit).min(run.end() - page);
        let ones = if count == BITS {
            u64::MAX
        } else {
            (1 << count) - 1
        };
        visit((page / BITS) as usize, ones << bit);
        page += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_set_and_clear_exactly_their_bits() {
        for (first, count) in [(0, 1), (0, 64), (63, 2), (5, 130), (64, 64), (1, 190)] {
            let words: Vec<AtomicU64> = (0..words_for(192)).map(|_| AtomicU64::new(0)).collect();
            let map = Bitmap::new(&words);
            let run = Run { first, count };
            let inside = |page: u64| (first..first + count).contains(&page);
            map.set(run);
            assert!(
                (0..192).all(|page| map.get(page) == inside(page)),
                "{run:?}"
            );
            let whole = Run {
                first: 0,
                count: 192,
            };
            let set: Vec<Run> = map
                .pieces(whole)
                .filter_map(|(piece, bit)| bit.then_some(piece))
                .collect();
            assert_eq!(set, [run]);
            map.set(whole);
            map.clear(run);
            assert!(
                (0..192).all(|page| map.get(page) != inside(page)),
                "{run:?}"
            );
        }
    }
}
