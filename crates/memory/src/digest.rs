//! Digests of whole files.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

use crate::sparse::for_each_extent;

/// Unit of the sparse digest. 64 KiB is the cluster size of qcow2 and a fair unit for extents of ext4.
const BLOCK_BYTES: u64 = 64 << 10;

/// SHA-256 of a file's bytes, in lower-case hex.
pub(crate) fn sha256_plain(mut file: &File) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hex::encode(hasher.finalize()));
        }
        hasher.update(&buffer[..read]);
    }
}

/// SHA-256 over the file's length and (block number, bytes) of its non-zero 64 KiB blocks, in lower-case hex.
///
/// Holes are skipped without being read, so a sparse 10 GB file costs only its data, and a copy whose holes
/// lie elsewhere has the same digest.
pub(crate) fn sha256_sparse(file: &File) -> io::Result<String> {
    let length = file.metadata()?.len();
    let mut hasher = Sha256::new();
    hasher.update(length.to_le_bytes());
    let mut buffer = vec![0; BLOCK_BYTES as usize];
    let mut next_block = 0;
    for_each_extent(file, |start, end| {
        // Extents need not start on a block: the first block may have been taken with the extent before.
        for block in (start / BLOCK_BYTES).max(next_block)..end.div_ceil(BLOCK_BYTES) {
            let offset = block * BLOCK_BYTES;
            let size =
                usize::try_from((length - offset).min(BLOCK_BYTES)).map_err(io::Error::other)?;
            file.read_exact_at(&mut buffer[..size], offset)?;
            if !is_zero(&buffer[..size]) {
                hasher.update(block.to_le_bytes());
                hasher.update(&buffer[..size]);
            }
            next_block = block + 1;
        }
        Ok(())
    })?;
    Ok(hex::encode(hasher.finalize()))
}

/// True when all bytes are zero. Compares whole pages, which the C library does at memory speed in every build.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; 4096] = [0; 4096];
    bytes
        .chunks(ZEROS.len())
        .all(|piece| *piece == ZEROS[..piece.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_zero() {
        for (bytes, wanted) in [
            (&[][..], true),
            (&[0], true),
            (&[1], false),
            (&[0, 0, 0], true),
            (&[0, 0, 1], false),
            (&[1, 0], false),
        ] {
            assert_eq!(is_zero(bytes), wanted, "{bytes:?}");
        }
    }

    #[test]
    fn sparse_digest_depends_on_content_only() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, dense: bool, tail: u8| {
            let path = dir.path().join(name);
            let file = File::options()
                .create(true)
                .read(true)
                .write(true)
                .truncate(true)
                .open(path)
                .unwrap();
            let length = (3 << 20) + 77;
            file.set_len(length).unwrap();
            if dense {
                file.write_all_at(&vec![0; length as usize], 0).unwrap();
            }
            file.write_all_at(&[9; 5000], 70_000).unwrap();
            file.write_all_at(&[tail], length - 1).unwrap();
            sha256_sparse(&file).unwrap()
        };
        let digest = make("a", false, 3);
        assert_eq!(digest, make("b", true, 3));
        assert_ne!(digest, make("c", true, 4));
        assert_eq!(digest.len(), 64);
    }
}
