//! Settings below `/proc/sys/net`, of the calling thread's namespace.

use std::fs;
use std::io;
use std::path::PathBuf;

/// Sets `name`, with `/` between its parts; gives the old value if it was another one.
pub(super) fn set(name: &str, value: &str) -> io::Result<Option<String>> {
    let path = path(name);
    let old = fs::read_to_string(&path)?;
    if old.trim() == value {
        return Ok(None);
    }
    fs::write(&path, value)?;
    Ok(Some(old.trim().to_owned()))
}

/// As [`set`], for a part of the kernel that may be missing.
pub(super) fn set_if_there(name: &str, value: &str) -> io::Result<()> {
    match set(name, value) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net").join(name)
}
