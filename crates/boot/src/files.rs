//! Reading, hashing and durably writing files.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::BootError;

/// The whole content of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, BootError> {
    fs::read(path).map_err(BootError::io("read", path))
}

/// SHA-256 of bytes in lower-case hexadecimal.
pub(crate) fn sha256_bytes(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// SHA-256 of a file's content in lower-case hexadecimal.
pub(crate) fn sha256_file(path: &Path) -> Result<String, BootError> {
    let mut file = File::open(path).map_err(BootError::io("open", path))?;
    let mut hasher = HashWriter(Sha256::new());
    io::copy(&mut file, &mut hasher).map_err(BootError::io("read", path))?;
    Ok(hex::encode(hasher.0.finalize()))
}

/// Creates a file that nobody may write to afterwards, and brings it to the disk.
pub(crate) fn write_finished(path: &Path, bytes: &[u8]) -> Result<(), BootError> {
    use std::os::unix::fs::OpenOptionsExt;

    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(path)
        .map_err(BootError::io("create", path))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(BootError::io("write", path))
}

/// Brings a directory's entries to the disk.
pub(crate) fn sync_dir(path: &Path) -> Result<(), BootError> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(BootError::io("sync", path))
}

struct HashWriter(Sha256);

impl Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
