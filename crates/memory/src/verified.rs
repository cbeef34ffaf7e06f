//! Remembers the digests of files that were read once, so that the second fork of an image hashes nothing.
//!
//! Shared by the daemon, the drivers and the loader of one process; cloning shares the memory.
//! An entry is keyed by device, inode, length and modification time. The change time would be stricter, but every
//! hard link made for a fork changes it. Finished image files are never written, so a changed modification time
//! means damage, and the file is read again.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::digest;

/// Entries kept; at about 200 bytes each the memory stays under 2 MB. When full, it starts over.
const MAX_ENTRIES: usize = 8192;

/// A file changed more recently than this is not remembered: two writes within one tick of a coarse file system
/// clock leave the same modification time.
const SETTLE: Duration = Duration::from_millis(20);

/// Which digest of the file is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// SHA-256 of the bytes.
    Plain,
    /// SHA-256 of the non-zero blocks.
    Sparse,
    /// Packed pages that passed the checks of the index with this digest.
    Pages,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    kind: Kind,
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

/// Digests of files read so far.
#[derive(Debug, Clone, Default)]
pub struct Verified {
    entries: Arc<Mutex<HashMap<Key, String>>>,
}

impl Verified {
    /// SHA-256 of a file's bytes in hex, read only if the file is new or has changed.
    pub fn sha256(&self, path: &Path) -> io::Result<String> {
        self.digest(path, Kind::Plain)
    }

    /// SHA-256 over the length and (number, bytes) of the non-zero 64 KiB blocks, as manifests record for disks.
    pub fn sparse_sha256(&self, path: &Path) -> io::Result<String> {
        self.digest(path, Kind::Sparse)
    }

    pub(crate) fn digest(&self, path: &Path, kind: Kind) -> io::Result<String> {
        let file = File::open(path)?;
        if let Some(known) = self.known(&file.metadata()?, kind) {
            return Ok(known);
        }
        let before = file.metadata()?;
        let digest = match kind {
            Kind::Plain => digest::sha256_plain(&file)?,
            Kind::Sparse | Kind::Pages => digest::sha256_sparse(&file)?,
        };
        self.remember(&before, kind, digest.clone());
        Ok(digest)
    }

    pub(crate) fn known(&self, metadata: &Metadata, kind: Kind) -> Option<String> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(&key(metadata, kind)).cloned()
    }

    /// Remembers `digest` for the file that had `metadata` before it was read.
    pub(crate) fn remember(&self, metadata: &Metadata, kind: Kind, digest: String) {
        let settled = metadata.modified().is_ok_and(|modified| {
            SystemTime::now()
                .duration_since(modified)
                .is_ok_and(|age| age > SETTLE)
        });
        if !settled {
            return;
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= MAX_ENTRIES {
            entries.clear();
        }
        entries.insert(key(metadata, kind), digest);
    }
}

fn key(metadata: &Metadata, kind: Kind) -> Key {
    Key {
        kind,
        device: metadata.dev(),
        inode: metadata.ino(),
        length: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    }
}
