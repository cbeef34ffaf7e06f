//! The programs as users get them.

use std::path::PathBuf;

use crate::process;
use crate::workspace::Workspace;

/// Release builds of daemon and command line.
pub(crate) struct Programs {
    /// The daemon.
    pub(crate) coppiced: PathBuf,
    /// The command line.
    pub(crate) coppice: PathBuf,
}

impl Programs {
    /// Builds both.
    pub(crate) fn build(workspace: &Workspace) -> anyhow::Result<Self> {
        process::run(process::cargo(workspace).args([
            "build",
            "--release",
            "--package",
            "daemon",
            "--package",
            "cli",
            "--bins",
        ]))?;
        let dir = workspace.target_dir.join("release");
        Ok(Self {
            coppiced: dir.join("coppiced"),
            coppice: dir.join("coppice"),
        })
    }
}
