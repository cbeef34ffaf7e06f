//! One edge for each directory.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt,
};

use super::Place;

/// The held lock of a directory.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// Makes the directory and locks it; `None` if another process has it.
    pub(crate) fn take(place: &Place) -> io::Result<Option<Self>> {
        let directory = place.directory();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        // The directory may be older, and what is in it is secret.
        std::fs::set_permissions(directory, PermissionsExt::from_mode(0o700))?;
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(place.lock())?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether it is the lock of this directory; not so if the directory was moved meanwhile.
    pub(crate) fn is_of(&self, place: &Place) -> bool {
        let (Ok(held), Ok(there)) = (self.0.metadata(), std::fs::metadata(place.lock())) else {
            return false;
        };
        (held.dev(), held.ino()) == (there.dev(), there.ino())
    }
}
