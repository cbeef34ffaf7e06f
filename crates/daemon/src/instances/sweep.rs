//! At start: directories that no record names are leftovers of a crash. Their VMMs are
//! ended and their bytes freed. A record that cannot be read still protects its directory.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use model::InstanceId;
use tracing::{info, warn};

use super::context::Context;
use super::disk::remove_tree;
use super::{OpError, chain};

/// What a sweep removed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Directories.
    pub directories: u64,
    /// Bytes that the file system got back.
    pub bytes: u64,
}

/// Removes the directories of instances that are not in `known`.
pub(super) async fn sweep(ctx: &Context, known: &HashSet<String>) -> Result<Swept, OpError> {
    let mut swept = Swept::default();
    let root = ctx.layout.instances();
    std::fs::create_dir_all(&root).map_err(OpError::disk("cannot create the data directory"))?;
    let entries = std::fs::read_dir(&root).map_err(OpError::disk("cannot list the instances"))?;
    for entry in entries.flatten() {
        let Some(id) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<InstanceId>().ok())
        else {
            warn!(path = %entry.path().display(), "not an instance's directory; left alone");
            continue;
        };
        if known.contains(id.as_str()) {
            continue;
        }
        let run_dir = ctx.layout.instance(&id).run();
        match ctx.drivers.adopt_any(&run_dir).await {
            Ok(Some(vm)) => {
                if let Err(error) = vm.kill().await {
                    warn!(instance = %id, why = %chain(&error), "an orphaned VMM cannot be ended");
                    continue;
                }
            }
            Ok(None) => {}
            Err(error) => {
                warn!(instance = %id, why = %chain(&error), "cannot look for an orphaned VMM");
                continue;
            }
        }
        let bytes = freed_bytes(&entry.path());
        remove_tree(&entry.path())?;
        swept.directories += 1;
        swept.bytes += bytes;
        info!(instance = %id, bytes, "removed what a crash had left");
    }
    Ok(swept)
}

/// Bytes of files that have no other link: what removing the tree gives back.
fn freed_bytes(path: &Path) -> u64 {
    let Ok(meta) = path.symlink_metadata() else {
        return 0;
    };
    if !meta.is_dir() {
        // st_blocks counts units of 512 bytes, whatever the block size is.
        return if meta.nlink() == 1 {
            meta.blocks() * 512
        } else {
            0
        };
    }
    std::fs::read_dir(path).map_or(0, |entries| {
        entries
            .flatten()
            .map(|entry| freed_bytes(&entry.path()))
            .sum()
    })
}
