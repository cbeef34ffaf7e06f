//! `cargo xtask agent`: the program that runs as PID 1 in every guest.

use std::path::PathBuf;

use crate::process;
use crate::workspace::Workspace;

/// Guests have this architecture whatever the host's default target is.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the agent and gives its path. It is static because an initrd has no libraries, and has its
/// own profile because its size counts in every guest.
pub(crate) fn build(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    process::run(
        process::cargo(workspace)
            .args([
                "build",
                "--quiet",
                "--package",
                "agent",
                "--profile",
                "agent",
            ])
            .args(["--target", TARGET])
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .env_remove("CARGO_ENCODED_RUSTFLAGS"),
    )?;
    Ok(workspace
        .target_dir
        .join(TARGET)
        .join("agent/coppice-agent"))
}
