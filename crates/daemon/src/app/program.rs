//! The daemon's own program, in other roles.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The program that runs, for processes that understand each other only if they are the same: launchers of VMMs, and
/// pagers. Its file may have been replaced by another version, long before the daemon is restarted; what has this name
/// is what the daemon itself was started from.
pub(super) fn own() -> PathBuf {
    "/proc/self/exe".into()
}

/// What a program was built from, as far as it has to be told from others.
pub(super) fn build_of(program: &Path) -> Result<String> {
    use std::os::unix::fs::MetadataExt as _;
    let file = std::fs::metadata(program).context("cannot look at the daemon's own program")?;
    let version = env!("CARGO_PKG_VERSION");
    Ok(format!("{version}-{:x}-{:x}", file.len(), file.mtime()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Set for the process whose program is removed.
    const REMOVED: &str = "COPPICE_TEST_REMOVES_ITSELF";
    const NAME: &str = "the_own_program_runs_when_its_file_is_another";

    #[test]
    fn the_own_program_runs_when_its_file_is_another() {
        let file = std::env::current_exe().unwrap();
        let program = own();
        if std::env::var_os(REMOVED).is_some() {
            std::fs::remove_file(&file).unwrap();
            std::fs::write(&file, "the next version").unwrap();
            let listed = Command::new(program).arg("--list").output().unwrap();
            assert!(String::from_utf8_lossy(&listed.stdout).contains(NAME));
            return;
        }
        let dir = tempfile::tempdir_in(file.parent().unwrap()).unwrap();
        let installed = dir.path().join("installed");
        std::fs::hard_link(&file, &installed).unwrap();
        let replaced = Command::new(&installed)
            .args(["--exact", &format!("app::program::tests::{NAME}")])
            .env(REMOVED, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&replaced.stdout);
        assert!(
            replaced.status.success() && said.contains("1 passed"),
            "{said}"
        );
    }
}
