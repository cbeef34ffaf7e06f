//! Empty qcow2 files, written without a tool: starting one would cost a fork more than everything else here.
//!
//! The header names no backing file. What lies below an overlay is said on QEMU's command line, so a file that was
//! moved or linked elsewhere never leads to a wrong one.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

const CLUSTER_BITS: u32 = 16;
const CLUSTER_BYTES: u64 = 1 << CLUSTER_BITS;

/// Bytes of disk that one entry of the first table leads to: a second-level table of one cluster, 8 bytes an entry.
const L1_ENTRY_SPAN: u64 = CLUSTER_BYTES / 8 * CLUSTER_BYTES;

/// Places of the parts, in clusters: header, refcount table, refcount block, first-level table.
const REFCOUNT_TABLE: u64 = 1;
const REFCOUNT_BLOCK: u64 = 2;
const L1_TABLE: u64 = 3;

/// Largest disk: its first-level table of 4 Mi entries and all else that is counted at the start fit one refcount
/// block.
const MAX_DISK_BYTES: u64 = 1 << 51;

/// Creates the new file `path`, a disk of `virtual_bytes` with nothing in it: all reads go to what lies below.
pub fn create_overlay(path: &Path, virtual_bytes: u64) -> io::Result<()> {
    if virtual_bytes == 0 || !virtual_bytes.is_multiple_of(512) || virtual_bytes > MAX_DISK_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a disk of {virtual_bytes} bytes"),
        ));
    }
    let l1_entries = virtual_bytes.div_ceil(L1_ENTRY_SPAN);
    let clusters = L1_TABLE + (l1_entries * 8).div_ceil(CLUSTER_BYTES);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.set_len(clusters * CLUSTER_BYTES)?;
    file.write_all_at(&header(virtual_bytes, l1_entries), 0)?;
    file.write_all_at(
        &(REFCOUNT_BLOCK * CLUSTER_BYTES).to_be_bytes(),
        REFCOUNT_TABLE * CLUSTER_BYTES,
    )?;
    let used: Vec<u8> = (0..clusters).flat_map(|_| 1_u16.to_be_bytes()).collect();
    file.write_all_at(&used, REFCOUNT_BLOCK * CLUSTER_BYTES)
}

/// Version 3 header, big-endian; fields that are not named are zero (no backing file, encryption or snapshots).
fn header(virtual_bytes: u64, l1_entries: u64) -> [u8; 112] {
    // 104 bytes of fields, then an empty list of extensions.
    let mut header = [0; 112];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb");
    put(4, &3_u32.to_be_bytes());
    put(20, &CLUSTER_BITS.to_be_bytes());
    put(24, &virtual_bytes.to_be_bytes());
    // At most 2^22 entries, see MAX_DISK_BYTES.
    put(36, &(l1_entries as u32).to_be_bytes());
    put(40, &(L1_TABLE * CLUSTER_BYTES).to_be_bytes());
    put(48, &(REFCOUNT_TABLE * CLUSTER_BYTES).to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    // Reference counts of 16 bits.
    put(96, &4_u32.to_be_bytes());
    put(100, &104_u32.to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn refuses_sizes_that_are_no_disk() {
        let dir = tempfile::tempdir().unwrap();
        for size in [0, 511, MAX_DISK_BYTES + 512] {
            assert!(
                create_overlay(&dir.path().join("x"), size).is_err(),
                "{size}"
            );
        }
    }

    #[test]
    fn is_small_and_never_overwrites() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("top");
        create_overlay(&path, 10 << 30).unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() <= 5 * CLUSTER_BYTES);
        assert!(create_overlay(&path, 10 << 30).is_err());
    }

    #[test]
    fn qemu_finds_no_fault() {
        let dir = tempfile::tempdir().unwrap();
        if Command::new("qemu-img").arg("--version").output().is_err() {
            println!("skipped: qemu-img is not installed");
            return;
        }
        for size in [512, 1 << 20, 10 << 30, 8 << 40, MAX_DISK_BYTES] {
            let path = dir.path().join(format!("{size}"));
            create_overlay(&path, size).unwrap();
            let output = Command::new("qemu-img")
                .arg("check")
                .arg(&path)
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{size}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            let info = Command::new("qemu-img")
                .args(["info", "--output=json"])
                .arg(&path)
                .output()
                .unwrap();
            let info: serde_json::Value = serde_json::from_slice(&info.stdout).unwrap();
            assert_eq!(info["virtual-size"], size);
        }
    }
}
