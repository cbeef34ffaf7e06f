//! Fuzzing of the handshake, which comes from processes that run hostile guests.
//!
//! Texts of `corpus/handshake` are changed over and over. One that is answered in a way not seen before joins the corpus
//! of the run, so that later changes start from there. Each answer is compared with an oracle that was written apart.
//!
//! As a test it runs for a fixed number of rounds from a fixed seed. `COPPICE_FUZZ_SECONDS` makes it run for so long from
//! a seed of its own, which is printed; `COPPICE_FUZZ_SEED` repeats such a run. `cargo xtask fuzz` sets them.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod mutate;
mod oracle;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use mutate::{Random, mutate};

/// Rounds of the test: about a second in a debug build.
const ROUNDS: u64 = 60_000;

const SEED: u64 = 0x5eed;

/// RAM that the texts of the corpus are about: the largest of them.
const RAM_BYTES: [u64; 3] = [128 << 20, 4 << 30, 1 << 20];

fn corpus() -> Vec<Vec<u8>> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/handshake");
    let mut paths: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

/// Checks the answer to a text, and says of which kind it is.
fn answer(bytes: &[u8], ram_bytes: u64) -> Option<String> {
    // What is not text never comes as far as the parser: it takes a `str`.
    let text = std::str::from_utf8(bytes).ok()?;
    let wanted = oracle::regions(text, ram_bytes);
    match pager::parse_handshake(text, ram_bytes) {
        Ok(found) => {
            let found: Vec<_> = found.iter().collect();
            assert_eq!(Some(&found), wanted.as_ref(), "taken: {text}");
            Some(format!("{} regions", found.len()))
        }
        Err(error) => {
            assert_eq!(wanted, None, "refused, {error}: {text}");
            // Numbers, and what is quoted of the text, are not a kind.
            let words = error.to_string();
            let plain = words.chars().take_while(|c| !matches!(c, '`' | '"'));
            Some(plain.filter(|c| !c.is_ascii_hexdigit()).collect())
        }
    }
}

fn fuzz(seed: u64, mut more: impl FnMut(u64) -> bool) -> (u64, HashSet<String>) {
    let mut random = Random::new(seed);
    let mut corpus = corpus();
    let mut kinds = HashSet::new();
    for text in &corpus {
        for ram_bytes in RAM_BYTES {
            kinds.extend(answer(text, ram_bytes));
        }
    }
    let mut round = 0;
    while more(round) {
        round += 1;
        let (text, other) = (random.pick(&corpus), random.pick(&corpus));
        let text = mutate(&mut random, text, other);
        let ram_bytes = *random.pick(&RAM_BYTES);
        if let Some(kind) = answer(&text, ram_bytes)
            && kinds.insert(kind)
        {
            corpus.push(text);
        }
    }
    (round, kinds)
}

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name}={value} is no number")),
    )
}

#[test]
fn handshakes_are_read_as_they_are_written_or_refused() {
    let Some(seconds) = variable("COPPICE_FUZZ_SECONDS") else {
        let (_, kinds) = fuzz(SEED, |round| round < ROUNDS);
        // Both answers are met, and many ways of the second: otherwise the changes reach nothing.
        assert!(
            kinds.contains("1 regions") && kinds.contains("2 regions"),
            "{kinds:?}"
        );
        assert!(kinds.len() > 20, "{kinds:?}");
        return;
    };
    let fresh = || std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = variable("COPPICE_FUZZ_SEED").unwrap_or_else(fresh);
    println!("seed {seed}: COPPICE_FUZZ_SEED={seed} repeats this run");
    let end = Instant::now() + Duration::from_secs(seconds);
    let (rounds, kinds) = fuzz(seed, |_| Instant::now() < end);
    println!("{rounds} texts, {} kinds of answers", kinds.len());
}
