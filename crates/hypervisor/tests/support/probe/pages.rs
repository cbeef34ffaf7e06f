//! Pages of RAM, filled and checked.

use crate::sys;

const PAGE: u64 = 4096;

/// What is done with pages.
#[derive(Clone, Copy)]
pub enum Verb {
    /// Fills them.
    Tag,
    /// Counts those that do not hold what `Tag` with the same seed has written.
    Wrong,
    /// Counts those that hold nothing but zeros.
    Zeros,
}

impl Verb {
    /// Of its number.
    pub fn of(number: u64) -> Self {
        [Self::Tag, Self::Wrong, Self::Zeros][number as usize]
    }
}

/// Something to do with `count` pages from `first` on.
pub struct Work {
    pub verb: Verb,
    pub first: u64,
    pub count: u64,
    pub seed: u64,
}

impl Work {
    /// Does every second run of `run` pages, from number `turn` on. What was counted.
    pub fn turns(&self, run: u64, turn: u64) -> u64 {
        let end = self.first + self.count;
        (self.first + turn * run..end)
            .step_by((2 * run).max(1) as usize)
            .map(|first| self.pages(first, end.min(first + run)))
            .sum()
    }

    fn pages(&self, first: u64, end: u64) -> u64 {
        (first..end)
            .filter(|page| match self.verb {
                Verb::Tag => {
                    tag(*page, self.seed);
                    false
                }
                Verb::Wrong => is_wrong(*page, self.seed),
                Verb::Zeros => is_zero(*page),
            })
            .count() as u64
    }
}

/// What a tagged page holds in its eight-byte word `at`.
fn tagged(page: u64, seed: u64, at: u64) -> u64 {
    (page << 20 | at).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed
}

fn words() -> impl Iterator<Item = u64> {
    0..PAGE / 8
}

pub fn tag(page: u64, seed: u64) {
    for at in words() {
        sys::write64(page * PAGE + at * 8, tagged(page, seed, at));
    }
}

/// Whether it does not hold what `tag` with this seed has written.
pub fn is_wrong(page: u64, seed: u64) -> bool {
    words().any(|at| sys::read64(page * PAGE + at * 8) != tagged(page, seed, at))
}

pub fn is_zero(page: u64) -> bool {
    words().all(|at| sys::read64(page * PAGE + at * 8) == 0)
}

/// Reads a word of it.
pub fn touch(page: u64) {
    sys::read64(page * PAGE);
}

/// FNV-1a over eight-byte words.
pub fn checksum(first: u64, count: u64) -> u64 {
    (first * PAGE..(first + count) * PAGE)
        .step_by(8)
        .fold(0xcbf2_9ce4_8422_2325, |sum, address| {
            (sum ^ sys::read64(address)).wrapping_mul(0x100_0000_01b3)
        })
}
