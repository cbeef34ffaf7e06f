//! Copies that keep holes: a 10 GB disk with 5 MB in it costs 5 MB.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// How the bytes came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyMethod {
    /// The file system shares the blocks (FICLONE).
    Reflinked,
    /// The data extents were copied.
    Copied,
}

/// Bytes copied per call; large enough to make the calls cheap, small enough for a stack of concurrent forks.
const BUFFER_BYTES: usize = 1 << 20;

/// Copies `from` to the new file `to` (mode 0600), sharing blocks where the file system can and keeping holes else.
pub fn copy_sparse(from: &Path, to: &Path) -> io::Result<CopyMethod> {
    let source = File::open(from)?;
    let target = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    if rustix::fs::ioctl_ficlone(&target, &source).is_ok() {
        return Ok(CopyMethod::Reflinked);
    }
    target.set_len(source.metadata()?.len())?;
    let mut buffer = vec![0; BUFFER_BYTES];
    for_each_extent(&source, |start, end| {
        let mut at = start;
        while at < end {
            let piece =
                usize::try_from(end - at).map_or(BUFFER_BYTES, |left| left.min(BUFFER_BYTES));
            source.read_exact_at(&mut buffer[..piece], at)?;
            target.write_all_at(&buffer[..piece], at)?;
            at += piece as u64;
        }
        Ok(())
    })?;
    Ok(CopyMethod::Copied)
}

/// Calls `visit(start, end)` for each data extent of `file`, in order. The file's offset is moved.
pub(crate) fn for_each_extent(
    file: impl AsFd,
    mut visit: impl FnMut(u64, u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut at = 0;
    loop {
        let start = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(&file, SeekFrom::Hole(start))?;
        visit(start, end)?;
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_bytes_and_holes() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        let file = File::create(&from).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"start", 0).unwrap();
        file.write_all_at(&[7; 3 << 20], 20 << 20).unwrap();
        let to = dir.path().join("to");
        copy_sparse(&from, &to).unwrap();
        assert!(std::fs::read(&from).unwrap() == std::fs::read(&to).unwrap());
        let blocks = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&to).unwrap());
        assert!(blocks * 512 < 8 << 20, "{blocks} blocks");
        assert!(
            copy_sparse(&from, &to).is_err(),
            "an existing file was overwritten"
        );
    }
}
