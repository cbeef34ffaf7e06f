//! Pages of RAM, filled and checked.

use crate::sys;

const PAGE: u64 = 4096;

/// What a tagged page holds in its eight-byte word `at`.
fn tagged(page: u64, seed: u64, at: u64) -> u64 {
    (page << 20 | at).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed
}

pub fn tag(first: u64, count: u64, seed: u64) {
    for page in first..first + count {
        for at in 0..PAGE / 8 {
            sys::write64(page * PAGE + at * 8, tagged(page, seed, at));
        }
    }
}

/// Pages that do not hold what `tag` with these arguments has written.
pub fn wrong(first: u64, count: u64, seed: u64) -> u64 {
    let is_wrong = |page: &u64| {
        (0..PAGE / 8).any(|at| sys::read64(page * PAGE + at * 8) != tagged(*page, seed, at))
    };
    (first..first + count).filter(is_wrong).count() as u64
}

/// Pages that hold nothing but zeros.
pub fn zeros(first: u64, count: u64) -> u64 {
    let is_zero = |page: &u64| (0..PAGE / 8).all(|at| sys::read64(page * PAGE + at * 8) == 0);
    (first..first + count).filter(is_zero).count() as u64
}

/// FNV-1a over eight-byte words.
pub fn checksum(first: u64, count: u64) -> u64 {
    (first * PAGE..(first + count) * PAGE)
        .step_by(8)
        .fold(0xcbf2_9ce4_8422_2325, |sum, address| {
            (sum ^ sys::read64(address)).wrapping_mul(0x100_0000_01b3)
        })
}
