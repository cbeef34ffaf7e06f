//! Root disks: a directory as one read-only erofs file.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Digest, ImportError};

const PROGRAM: &str = "mkfs.erofs";

/// Directories that an ordinary user's PATH may lack.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Makes the root disk `to` from the files below `dir`. The same image always gives the same bytes:
/// the identifier of the file system comes from the image's digest, and files keep the times they
/// have in the layers. (One time for all of them would be shorter, but Python, make and others
/// compare times of files.)
pub(crate) fn make(dir: &Path, to: &Path, image: &Digest) -> Result<(), ImportError> {
    let newest = newest_time(dir).map_err(ImportError::io("inspect", dir))?;
    let output = Command::new(PROGRAM)
        .args(["--quiet", "-zlz4"])
        .arg(format!("-U{}", uuid(image)))
        .arg(to)
        .arg(dir)
        // The time of the file system itself, and the last that any file may have.
        .env("SOURCE_DATE_EPOCH", newest.to_string())
        .env("PATH", SYSTEM_PATH)
        .stdin(Stdio::null())
        .output();
    let output = output.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ImportError::ProgramMissing {
            program: PROGRAM,
            package: "erofs-utils",
        },
        _ => ImportError::Io {
            action: "run",
            path: PROGRAM.into(),
            source,
        },
    })?;
    if output.status.success() {
        return Ok(());
    }
    // Its words for a full disk and its exit status are those of any failure.
    if free_bytes(to).is_ok_and(|free| free < (1 << 20)) {
        return Err(ImportError::DiskFull { path: to.into() });
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(ImportError::MkfsFailed { stderr })
}

/// The first half of a digest in the form of a UUID of version 8, which is for such uses.
fn uuid(image: &Digest) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&image.as_bytes()[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex::encode(bytes);
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

/// The newest time of anything below a directory, at least 1.
fn newest_time(dir: &Path) -> io::Result<i64> {
    use std::os::unix::fs::MetadataExt;

    let mut newest = fs::symlink_metadata(dir)?.mtime().max(1);
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        newest = newest.max(match entry.file_type()?.is_dir() {
            true => newest_time(&entry.path())?,
            false => entry.metadata()?.mtime(),
        });
    }
    Ok(newest)
}

fn free_bytes(path: &Path) -> io::Result<u64> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail * stat.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identifier_is_a_valid_uuid_of_the_digest() {
        assert_eq!(
            uuid(&Digest::of(b"")),
            "e3b0c442-98fc-8c14-9afb-f4c8996fb924"
        );
    }
}
