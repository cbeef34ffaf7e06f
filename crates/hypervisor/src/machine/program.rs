//! The program of a VMM, as the host has it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::VmmError;

/// A VMM says its version within some 20 ms on an idle host.
const VERSION_DEADLINE: Duration = Duration::from_secs(10);

/// The one that is configured, else the first of this name in the `PATH`.
pub(crate) fn find(configured: Option<&Path>, name: &str) -> Option<PathBuf> {
    if let Some(path) = configured {
        return Some(path.to_owned());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

/// What it prints when it is asked for its version.
pub(crate) async fn version_text(program: &Path) -> Result<String, VmmError> {
    let mut command = Command::new(program);
    command
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(VERSION_DEADLINE, command.output())
        .await
        .map_err(|_| VmmError::Timeout {
            what: "the VMM's --version",
            after: VERSION_DEADLINE,
        })?
        .map_err(VmmError::io("run", program))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
