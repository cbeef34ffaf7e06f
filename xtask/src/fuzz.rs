//! `cargo xtask fuzz`: the fuzz tests, for longer than as a part of all tests.

use crate::process;
use crate::workspace::Workspace;

/// Runs them one after the other, optimized; a failure says what was found.
pub(crate) fn run(workspace: &Workspace, seconds: u32, seed: Option<u64>) -> anyhow::Result<()> {
    let mut cargo = process::cargo(workspace);
    cargo
        .args(["test", "--release", "--package", "pager", "--test", "fuzz"])
        .args(["--", "--show-output"])
        .env("COPPICE_FUZZ_SECONDS", seconds.to_string());
    if let Some(seed) = seed {
        cargo.env("COPPICE_FUZZ_SEED", seed.to_string());
    }
    process::run(&mut cargo)
}
