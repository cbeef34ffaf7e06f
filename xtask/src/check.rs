//! `cargo xtask check`: everything that can be said about a change without running it.

use crate::workspace::Workspace;
use crate::{process, tidy};

/// Formatting, clippy with warnings as errors, and tidy.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    process::run(process::cargo(workspace).args(["fmt", "--all", "--check"]))?;
    process::run(
        process::cargo(workspace)
            .args(["clippy", "--quiet", "--workspace", "--all-targets"])
            .args(["--", "-D", "warnings"]),
    )?;
    tidy::run(workspace)
}
