//! The chain of files that is a machine's disk.

use std::io;
use std::path::PathBuf;

use memory::copy_sparse;

use super::create_overlay;
use crate::{DiskFile, DiskFormat};

/// Puts a new file at `top` over the frozen chain `below`, base first, of a disk of `virtual_bytes`, in the format that
/// the VMM writes to ([`crate::Powers::disk`]): an overlay that hides what it changes, or a whole copy, which is then
/// the only file of the chain. Copies share blocks where the file system can.
pub fn extend_chain(
    format: DiskFormat,
    mut below: Vec<DiskFile>,
    top: PathBuf,
    virtual_bytes: u64,
) -> io::Result<Vec<DiskFile>> {
    match format {
        DiskFormat::Qcow2 => {
            create_overlay(&top, virtual_bytes)?;
            below.push(DiskFile { path: top, format });
            Ok(below)
        }
        DiskFormat::Raw => match below.as_slice() {
            [
                DiskFile {
                    path,
                    format: DiskFormat::Raw,
                },
            ] => {
                copy_sparse(path, &top)?;
                Ok(vec![DiskFile { path: top, format }])
            }
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a disk of overlays cannot be given to a VMM that needs one raw file",
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_disk_is_copied_and_an_overlay_is_not_flattened() {
        let dir = tempfile::tempdir().unwrap();
        let base = DiskFile {
            path: dir.path().join("base"),
            format: DiskFormat::Raw,
        };
        std::fs::write(&base.path, [7; 8192]).unwrap();
        let place = |name: &str| dir.path().join(name);
        let raw = extend_chain(DiskFormat::Raw, vec![base.clone()], place("raw"), 8192).unwrap();
        assert_eq!(raw.len(), 1);
        assert_eq!(std::fs::read(&raw[0].path).unwrap(), [7; 8192]);
        let chain = extend_chain(DiskFormat::Qcow2, vec![base], place("over"), 8192).unwrap();
        assert_eq!(chain.len(), 2);
        assert!(extend_chain(DiskFormat::Raw, chain, place("flat"), 8192).is_err());
    }
}
