//! A finished image: opened, verified, linked, removed; never written.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::ImageError;
use crate::index::Encoding;
use crate::layer;
use crate::manifest::{LayerRecord, Manifest};
use crate::names;
use crate::reader::LayerReader;
use crate::runs::{PAGE_BYTES, page_count};
use crate::sparse::CopyMethod;
use crate::verified::{Kind, Verified};

/// How a directory came to own bytes. Of several files the greatest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owned {
    /// Hard links: the bytes are shared on disk and live as long as any link.
    Linked,
    /// Reflinks, because there can be no (more) links: blocks on disk are shared, pages in the cache are not.
    Reflinked,
    /// A copy, because the two directories can share nothing.
    Copied,
}

/// How the RAM of an image is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoredRam {
    /// Layers on top of each other.
    pub layers: usize,
    /// Those of them that are compressed.
    pub compressed_layers: usize,
    /// Bytes of RAM in the layers, a page in two layers counted twice. The rest of RAM is zero.
    pub ram_bytes: u64,
    /// Bytes that they take on the disk, indexes left out, those that other images have links to included.
    pub stored_bytes: u64,
}

/// A complete memory image.
#[derive(Debug, Clone)]
pub struct Image {
    dir: PathBuf,
    manifest: Manifest,
}

impl Image {
    /// Opens the image in `dir`. Only the manifest is read and checked; see [`Image::verify`] for the rest.
    pub fn open(dir: &Path) -> Result<Self, ImageError> {
        let path = dir.join(names::MANIFEST);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ImageError::NotComplete {
                    dir: dir.to_path_buf(),
                });
            }
            read => read.map_err(ImageError::io("read", &path))?,
        };
        Ok(Self {
            dir: dir.to_path_buf(),
            manifest: Manifest::decode(&bytes)?,
        })
    }

    pub(crate) fn from_parts(dir: PathBuf, manifest: Manifest) -> Self {
        Self { dir, manifest }
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Path of the device state.
    #[must_use]
    pub fn state_path(&self) -> PathBuf {
        self.dir.join(names::STATE)
    }

    /// Path of a file of the disk chain, base first.
    #[must_use]
    pub fn disk_path(&self, position: usize) -> PathBuf {
        self.dir.join(names::disk(position))
    }

    /// Opens a layer of this image for reading chunk by chunk; its index is read and checked.
    pub fn layer(&self, record: &LayerRecord) -> Result<LayerReader, ImageError> {
        let index = layer::read_index(
            &self.dir,
            &record.id,
            &record.index_blake3,
            self.manifest.machine.ram_bytes,
        )?;
        LayerReader::open(&self.dir, &record.id, index)
    }

    /// How its RAM is stored. The indexes are read and checked, the pages are not.
    pub fn stored_ram(&self) -> Result<StoredRam, ImageError> {
        let mut sum = StoredRam::default();
        for record in &self.manifest.layers {
            let layer = self.layer(record)?;
            sum.layers += 1;
            sum.compressed_layers += usize::from(layer.encoding() == Encoding::Zstd);
            sum.ram_bytes += page_count(layer.runs()) * PAGE_BYTES as u64;
            sum.stored_bytes += layer.stored_bytes();
        }
        Ok(sum)
    }

    /// Bytes of all files, counted once each, as allocated on disk; what removing the last link would free.
    pub fn disk_usage_bytes(&self) -> Result<u64, ImageError> {
        let mut bytes = 0;
        for name in self.file_names() {
            let path = self.dir.join(name);
            let metadata = fs::metadata(&path).map_err(ImageError::io("examine", &path))?;
            bytes += std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
        }
        Ok(bytes)
    }

    /// Checks every byte of every file. Files that `verified` knows are not read again.
    pub fn verify(&self, verified: &Verified) -> Result<(), ImageError> {
        self.verify_state_and_disks(verified)?;
        for record in &self.manifest.layers {
            self.verify_layer(record, verified)?;
        }
        Ok(())
    }

    /// Checks device state and disks; RAM is checked by whoever loads it (see [`crate::Loader`]).
    pub fn verify_state_and_disks(&self, verified: &Verified) -> Result<(), ImageError> {
        let state = &self.manifest.state;
        self.verify_file(
            names::STATE.to_owned(),
            state.bytes,
            &state.sha256,
            Kind::Plain,
            verified,
        )?;
        for (position, disk) in self.manifest.disks.iter().enumerate() {
            self.verify_file(
                names::disk(position),
                disk.file_bytes,
                &disk.sparse_sha256,
                Kind::Sparse,
                verified,
            )?;
        }
        Ok(())
    }

    /// Makes `dir` a second owner of all bytes of this image, by hard links where possible.
    /// The new directory is not synced; see [`Image::make_durable`].
    pub fn link_into(&self, dir: &Path) -> Result<(Self, Owned), ImageError> {
        fs::create_dir(dir).map_err(ImageError::io("create directory", dir))?;
        match self.link_files(dir) {
            Ok(owned) => Ok((
                Self {
                    dir: dir.to_path_buf(),
                    manifest: self.manifest.clone(),
                },
                owned,
            )),
            Err(error) => {
                // The manifest comes last, so what is left behind is no image; removing it is best effort.
                drop(fs::remove_dir_all(dir));
                Err(error)
            }
        }
    }

    /// Makes the names of a linked image survive a power failure.
    pub fn make_durable(&self) -> Result<(), ImageError> {
        sync_dir(&self.dir)?;
        self.dir.parent().map_or(Ok(()), sync_dir)
    }

    /// Removes this directory; other owners keep the bytes. The manifest goes first, so that a half removed
    /// image does not count as one.
    pub fn remove(self) -> Result<(), ImageError> {
        let manifest = self.dir.join(names::MANIFEST);
        fs::remove_file(&manifest).map_err(ImageError::io("remove", &manifest))?;
        fs::remove_dir_all(&self.dir).map_err(ImageError::io("remove", &self.dir))
    }

    fn link_files(&self, dir: &Path) -> Result<Owned, ImageError> {
        let mut owned = Owned::Linked;
        for name in self.file_names() {
            let target = dir.join(&name);
            let how = link_or_copy(&self.dir.join(&name), &target)?;
            owned = owned.max(how);
            if how != Owned::Linked {
                // Unlike those of a link, the bytes of a copy may still be in the page cache only.
                File::open(&target)
                    .and_then(|file| file.sync_all())
                    .map_err(ImageError::io("sync", &target))?;
            }
        }
        Ok(owned)
    }

    /// All files, the manifest last.
    fn file_names(&self) -> Vec<String> {
        let layers = self
            .manifest
            .layers
            .iter()
            .flat_map(|layer| [names::pages(&layer.id), names::index(&layer.id)]);
        let disks = (0..self.manifest.disks.len()).map(names::disk);
        let ends = [names::STATE.to_owned(), names::MANIFEST.to_owned()];
        layers.chain(disks).chain(ends).collect()
    }

    fn verify_layer(&self, record: &LayerRecord, verified: &Verified) -> Result<(), ImageError> {
        let mut layer = self.layer(record)?;
        let metadata = layer
            .file()
            .metadata()
            .map_err(ImageError::io("examine", layer.path()))?;
        if verified.known(&metadata, Kind::Pages).as_ref() == Some(&record.index_blake3) {
            return Ok(());
        }
        layer::read_pages(&mut layer, |_, _| Ok(()))?;
        verified.remember(&metadata, Kind::Pages, record.index_blake3.clone());
        Ok(())
    }

    fn verify_file(
        &self,
        name: String,
        bytes: u64,
        wanted: &str,
        kind: Kind,
        verified: &Verified,
    ) -> Result<(), ImageError> {
        let path = self.dir.join(&name);
        layer::open_exact(&path, &name, bytes)?;
        let found = verified
            .digest(&path, kind)
            .map_err(ImageError::io("read", &path))?;
        if found == wanted {
            Ok(())
        } else {
            Err(ImageError::corrupt(
                name,
                "SHA-256 differs from the manifest",
            ))
        }
    }
}

/// Makes `to` an owner of the bytes of `from`, which must never be written again: a hard link, or, where the file
/// system allows no (more) links, a reflink or a sparse copy, read-only. A copy is not synced. A link comes before a
/// reflink because all links of a file are one in the page cache, and in what is known to be verified.
pub fn link_or_copy(from: &Path, to: &Path) -> Result<Owned, ImageError> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(Owned::Linked),
        Err(error) if cannot_link(&error) => {
            let method = crate::copy_sparse(from, to).map_err(ImageError::io("copy", from))?;
            let read_only = std::os::unix::fs::PermissionsExt::from_mode(0o444);
            fs::set_permissions(to, read_only).map_err(ImageError::io("protect", to))?;
            Ok(match method {
                CopyMethod::Reflinked => Owned::Reflinked,
                CopyMethod::Copied => Owned::Copied,
            })
        }
        Err(error) => Err(ImageError::io("link", from)(error)),
    }
}

/// Other file system, too many links, a file system without links, or links to files of others forbidden.
fn cannot_link(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::CrossesDevices
            | io::ErrorKind::TooManyLinks
            | io::ErrorKind::Unsupported
            | io::ErrorKind::PermissionDenied
    )
}

pub(crate) fn sync_dir(dir: &Path) -> Result<(), ImageError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(ImageError::io("sync", dir))
}
