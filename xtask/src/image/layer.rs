//! Writing one layer of an image: a tar stream in which everything belongs to root and is as old as
//! the epoch, so that the same content has the same digest.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};
use tar::EntryType;

/// Directories that are links into `/usr` in the base layer, as in current distributions.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// A finished layer.
pub(crate) struct LayerBlob {
    /// The uncompressed layer; its digest is the diff id.
    pub tar: Vec<u8>,
    /// The compressed layer; its digest is the blob's name.
    pub gzip: Vec<u8>,
}

/// SHA-256 in lower-case hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A layer being written. Paths are relative to the image's root.
pub(crate) struct LayerBuilder {
    tar: tar::Builder<Vec<u8>>,
    directories: BTreeSet<PathBuf>,
}

impl LayerBuilder {
    pub(crate) fn new() -> Self {
        Self {
            tar: tar::Builder::new(Vec::new()),
            directories: BTreeSet::new(),
        }
    }

    /// Adds a directory, once.
    pub(crate) fn directory(&mut self, path: &str, mode: u32) -> anyhow::Result<()> {
        if self.directories.insert(PathBuf::from(path)) {
            let mut header = header(EntryType::Directory, mode, 0);
            self.tar.append_data(&mut header, path, std::io::empty())?;
        }
        Ok(())
    }

    /// Adds a file.
    pub(crate) fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
        let mut header = header(EntryType::Regular, mode, bytes.len() as u64);
        Ok(self.tar.append_data(&mut header, path, bytes)?)
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &Path) -> anyhow::Result<()> {
        let mut header = header(EntryType::Symlink, 0o777, 0);
        Ok(self.tar.append_link(&mut header, path, target)?)
    }

    /// Adds everything below a directory of the host for which `keep` says so, with the old places of
    /// [`MERGED`] moved into `/usr`.
    pub(crate) fn tree(&mut self, top: &Path, keep: &dyn Fn(&str) -> bool) -> anyhow::Result<()> {
        self.subtree(top, top, keep)
    }

    fn subtree(
        &mut self,
        top: &Path,
        dir: &Path,
        keep: &dyn Fn(&str) -> bool,
    ) -> anyhow::Result<()> {
        let mut entries = fs::read_dir(dir)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .with_context(|| format!("list {}", dir.display()))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let name = place_in_image(path.strip_prefix(top)?)?;
            if !keep(&name) {
                continue;
            }
            let meta = entry.metadata()?;
            let mode = meta.permissions().mode() & 0o7777;
            if meta.is_dir() {
                if !MERGED.contains(&name.as_str()) {
                    self.directory(&name, mode)?;
                }
                self.subtree(top, &path, keep)?;
            } else if meta.is_symlink() {
                self.link(&name, &fs::read_link(&path)?)?;
            } else {
                self.file(&name, mode, &fs::read(&path)?)?;
            }
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> anyhow::Result<LayerBlob> {
        let tar = self.tar.into_inner()?;
        let mut gzip = GzBuilder::new()
            .mtime(0)
            .write(Vec::new(), Compression::default());
        gzip.write_all(&tar)?;
        Ok(LayerBlob {
            gzip: gzip.finish()?,
            tar,
        })
    }
}

fn place_in_image(path: &Path) -> anyhow::Result<String> {
    let name = path
        .to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))?;
    let below_merged = MERGED
        .iter()
        .any(|dir| name.starts_with(&format!("{dir}/")));
    Ok(if below_merged {
        format!("usr/{name}")
    } else {
        name.to_owned()
    })
}

fn header(kind: EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
