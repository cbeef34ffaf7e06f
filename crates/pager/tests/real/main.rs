//! Real pagers serve real memory by userfaultfd. The guests are processes without a VMM.
//!
//! Takes the arguments of the standard test harness that runners use: parts of names (whole ones with `--exact`) and
//! `--list`. Measurements run only when they are named.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod conformance;
mod corruption;
mod fairness;
mod finding;
mod guest;
mod life;
mod misbehaving;
mod reference;
mod rig;
mod serving;
mod speed;
mod takeover;
mod upgrade;

use std::process::ExitCode;

type Test = (&'static str, fn());

/// What prints figures, and runs only when it is named.
const MEASURE: &str = "measure";

const TESTS: &[&[Test]] = &[
    serving::ALL,
    takeover::ALL,
    corruption::ALL,
    life::ALL,
    finding::ALL,
    upgrade::ALL,
    misbehaving::ALL,
    fairness::ALL,
    conformance::ALL,
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, rest @ ..] = arguments.as_slice()
        && first == guest::GUEST
    {
        guest::main(rest);
        return ExitCode::SUCCESS;
    }
    let has = |option: &str| arguments.iter().any(|argument| argument == option);
    let tests = || TESTS.iter().copied().flatten();
    if has("--list") {
        if !has("--ignored") {
            tests().for_each(|(name, _)| println!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    let lack = pager::fake::Guest::new(4096).err();
    let filters: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let is_named = |name: &str| {
        filters
            .iter()
            .any(|filter| name == *filter || !has("--exact") && name.contains(filter.as_str()))
    };
    for (name, test) in tests().filter(|(name, _)| filters.is_empty() || is_named(name)) {
        println!("{name}");
        match &lack {
            Some(error) if *name != conformance::FAKE => {
                println!("skipped: userfaultfd is not usable here: {error}");
            }
            _ => test(),
        }
    }
    if is_named(MEASURE) {
        speed::measure();
    }
    ExitCode::SUCCESS
}
