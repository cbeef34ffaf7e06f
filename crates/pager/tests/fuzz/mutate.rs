//! Changes of a text: small ones that keep most of it, and large ones that bring two texts together.

/// Pieces that such texts are made of, and numbers at which arithmetic goes wrong.
const WORDS: [&str; 27] = [
    "\"base_host_virt_addr\":",
    "\"size\":",
    "\"offset\":",
    "\"page_size\":",
    "\"page_size_kib\":",
    "\"more\":",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "null",
    "true",
    "\"4096\"",
    "0",
    "-1",
    "1",
    "4095",
    "4096",
    "2097152",
    "1e3",
    "4096.0",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "\\u0030",
];

/// Longest text that is made. More than is taken, so that the limit is met too.
const MAX_BYTES: usize = 20 << 10;

/// Numbers that look random and are the same for the same seed (xorshift64*, Vigna 2014).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// Below `end`, which must not be 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16;
        (number % end as u64) as usize
    }

    /// An element.
    pub(crate) fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// `text` with one to eight changes; `other` is what it may be brought together with.
pub(crate) fn mutate(random: &mut Random, text: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = text.to_vec();
    for _ in 0..=random.below(8) {
        change(random, &mut bytes, other);
        bytes.truncate(MAX_BYTES);
    }
    bytes
}

fn change(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = random.below(bytes.len() + 1);
    let len = random.below(bytes.len() - at + 1);
    match random.below(8) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        1 => bytes.insert(at, random.below(256) as u8),
        2 => drop(bytes.drain(at..at + len)),
        3 => {
            let piece = bytes[at..at + len].to_vec();
            let to = random.below(bytes.len() + 1);
            bytes.splice(to..to, piece);
        }
        4 => {
            let word = random.pick(&WORDS).bytes();
            bytes.splice(at..at, word);
        }
        5 | 6 => replace_number(random, bytes, at),
        _ => {
            let from = random.below(other.len() + 1);
            bytes.splice(at.., other[from..].iter().copied());
        }
    }
}

/// The first number behind `at` becomes another: one of the words, or itself changed a little.
fn replace_number(random: &mut Random, bytes: &mut Vec<u8>, at: usize) {
    let digit = |from: usize, wanted: bool| {
        let rest = bytes.get(from..)?.iter();
        let found = rest
            .copied()
            .position(|byte| byte.is_ascii_digit() == wanted);
        found.map(|nth| from + nth)
    };
    let Some(start) = digit(at, true) else {
        return;
    };
    let end = digit(start, false).unwrap_or(bytes.len());
    let old = std::str::from_utf8(&bytes[start..end])
        .ok()
        .and_then(|text| text.parse::<u64>().ok())
        .unwrap_or(0);
    let new = match random.below(6) {
        0 => old.wrapping_add(1).to_string(),
        1 => old.wrapping_sub(4096).to_string(),
        2 => old.wrapping_add(4096).to_string(),
        3 => (old << random.below(64)).to_string(),
        4 => (old >> random.below(64)).to_string(),
        _ => (*random.pick(&WORDS)).to_owned(),
    };
    bytes.splice(start..end, new.into_bytes());
}
