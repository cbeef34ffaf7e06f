//! Base disks: a sparse file with an empty ext4 in it.

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::VmmError;

/// The file is new and reads as zeros, so nothing has to be zeroed: not now, and above all not later by a thread in
/// each guest, which would give every fork dirty pages for nothing.
const PREZEROED: &str = "assume_storage_prezeroed=1,nodiscard";

/// For versions of mkfs before 1.47.
const ZERO_NOW: &str = "lazy_itable_init=0,lazy_journal_init=0,nodiscard";

/// Creates the new file `path` with an ext4 of `bytes`, to be shared by all machines with disks of that size: it is
/// read-only, overlays are written instead. Blocks for some tens of milliseconds.
pub fn format_ext4(path: &Path, bytes: u64) -> Result<(), VmmError> {
    create(path, bytes)?;
    let made = mkfs(path, PREZEROED)
        .or_else(|_| mkfs(path, ZERO_NOW))
        .and_then(|()| {
            std::fs::set_permissions(path, Permissions::from_mode(0o444))
                .map_err(VmmError::io("protect", path))
        });
    if made.is_err() {
        // Nobody else knows the file; that it cannot be removed is less news than why it was not made.
        drop(std::fs::remove_file(path));
    }
    made
}

fn create(path: &Path, bytes: u64) -> Result<(), VmmError> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    file.and_then(|file| file.set_len(bytes))
        .map_err(VmmError::io("create", path))
}

fn mkfs(path: &Path, extended: &str) -> Result<(), VmmError> {
    let output = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-m", "0", "-L", "coppice", "-E", extended])
        .arg(path)
        .env("PATH", search_path())
        .stdin(Stdio::null())
        .output()
        .map_err(VmmError::io("run", Path::new("mkfs.ext4")))?;
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr);
    Err(VmmError::unusable(format!(
        "mkfs.ext4 failed: {}",
        reason.trim()
    )))
}

/// Distributions keep mkfs where users who are not root do not look.
fn search_path() -> String {
    format!(
        "{}:/usr/sbin:/sbin",
        std::env::var("PATH").unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn makes_a_sparse_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("base");
        match format_ext4(&path, 2 << 30) {
            Err(VmmError::Io { action: "run", .. }) => {
                println!("skipped: mkfs.ext4 is not installed");
            }
            made => {
                made.unwrap();
                let metadata = std::fs::metadata(&path).unwrap();
                assert_eq!(metadata.len(), 2 << 30);
                assert_eq!(metadata.mode() & 0o777, 0o444);
                assert!(
                    metadata.blocks() * 512 < 64 << 20,
                    "{} KiB",
                    metadata.blocks() / 2
                );
                let mut magic = [0; 2];
                let file = std::fs::File::open(&path).unwrap();
                std::os::unix::fs::FileExt::read_exact_at(&file, &mut magic, 0x438).unwrap();
                assert_eq!(magic, [0x53, 0xef], "superblock");
                assert!(
                    format_ext4(&path, 1 << 20).is_err(),
                    "an existing file was formatted"
                );
                assert_eq!(std::fs::metadata(&path).unwrap().len(), 2 << 30);
            }
        }
    }
}
