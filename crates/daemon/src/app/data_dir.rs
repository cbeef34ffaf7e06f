//! Whose the data directory is.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::fs::{FlockOperation, flock};
use tokio::time::Instant;

/// How long to wait for the lock. A daemon that was killed keeps it for as long as a child that it had just forked has
/// not become another program: milliseconds, more on a busy host.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// Memory images hold whatever was in the guests' memory, records their environments:
/// nobody else may come near. VMMs with a user of their own must be able to reach their
/// files by name, so their group, and no other, may pass through the directory.
pub(super) fn protect(data_dir: &Path, vmm_uid: Option<u32>) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let refused = || format!("cannot protect {}", data_dir.display());
    if vmm_uid.is_some() {
        // VMMs run with the group of the same number.
        std::os::unix::fs::chown(data_dir, None, vmm_uid).with_context(refused)?;
    }
    let mode = if vmm_uid.is_some() { 0o710 } else { 0o700 };
    std::fs::set_permissions(data_dir, std::fs::Permissions::from_mode(mode)).with_context(refused)
}

/// One daemon owns a data directory, for as long as it keeps this.
pub(crate) async fn lock(path: &Path, patience: Duration) -> Result<std::fs::File> {
    let file =
        std::fs::File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let began = Instant::now();
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if began.elapsed() >= patience {
            bail!(
                "another coppiced already runs on this data directory ({} is locked)",
                path.display()
            );
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    #[tokio::test]
    async fn a_second_daemon_waits_for_the_first_to_be_gone_and_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = lock(&path, Duration::ZERO).await.unwrap();
        let refused = lock(&path, Duration::ZERO).await.unwrap_err();
        assert!(refused.to_string().contains("already runs"), "{refused}");

        let second = lock(&path, Duration::from_secs(60));
        tokio::pin!(second);
        let early = futures::poll!(&mut second);
        assert!(early.is_pending());
        drop(first);
        second.await.unwrap();
    }

    #[test]
    fn the_data_directory_is_closed_to_all_but_the_daemon_and_its_vmms() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let own = rustix::process::getegid().as_raw();
        let group = if rustix::process::geteuid().is_root() {
            own + 4711
        } else {
            own
        };
        for (vmm_uid, mode) in [(None, 0o700), (Some(group), 0o710), (None, 0o700)] {
            protect(dir.path(), vmm_uid).unwrap();
            let meta = std::fs::metadata(dir.path()).unwrap();
            assert_eq!(meta.permissions().mode() & 0o777, mode, "{vmm_uid:?}");
            if let Some(group) = vmm_uid {
                assert_eq!(meta.gid(), group);
            }
        }
    }
}
