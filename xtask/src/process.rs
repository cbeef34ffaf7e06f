//! Running other programs.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::workspace::Workspace;

/// A cargo command at the top of the checkout, with the cargo that runs xtask.
pub(crate) fn cargo(workspace: &Workspace) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&workspace.root).stdin(Stdio::null());
    command
}

/// Runs a command to its end and fails, naming it, unless it succeeds.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let described = describe(command);
    let status = command
        .status()
        .with_context(|| format!("start {described}"))?;
    if !status.success() {
        bail!("{described}: {status}");
    }
    Ok(())
}

/// Runs a command to its end and gives what it printed.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let described = describe(command);
    let output = command
        .output()
        .with_context(|| format!("start {described}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{described}: {}\n{stderr}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("output of {described}"))
}

/// Where a program is, as a shell would find it. System directories count even if they are not in an
/// ordinary user's PATH: mkfs lives there.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
