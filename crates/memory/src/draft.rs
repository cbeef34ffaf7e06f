//! Writing an image.
//!
//! A draft is a directory without a manifest. Its owner (one task of the daemon, with a driver filling in RAM and
//! state while the machine is paused) writes each file once, then calls [`Draft::finish`], which hashes, makes
//! everything durable and read-only, and writes the manifest last. Until then no program takes it for an image.
//! A draft that is dropped unfinished removes its directory; what a killed process leaves is found by the sweep
//! of the daemon, because it has no manifest.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::image::{Image, Owned, link_or_copy, sync_dir};
use crate::index::Encoding;
use crate::layer::{self, LayerKind, LayerStats, PageSource, ZSTD_LEVEL};
use crate::manifest::{
    DiskFormat, DiskRecord, FORMAT_VERSION, LayerRecord, MachineFacts, Manifest, RootRecord,
    StateRecord,
};
use crate::verified::Kind;
use crate::{ImageError, ImageId, LayerId, Verified, names};

/// How a disk file gets into the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Hard link; copied where the file system refuses. The source must never be written again.
    Link,
    /// Sparse or reflink copy; the source may be written afterwards.
    Copy,
    /// Rename; copied and removed where the file system refuses.
    Move,
}

/// A disk file to freeze.
#[derive(Debug, Clone)]
pub struct NewDisk {
    /// The file.
    pub source: PathBuf,
    /// Its format.
    pub format: DiskFormat,
    /// Size of the disk the guest sees, in bytes.
    pub virtual_bytes: u64,
    /// How it gets into the image.
    pub how: How,
}

/// What the manifest says beyond the files.
#[derive(Debug, Clone)]
pub struct ManifestFacts {
    /// The machine, as the driver that captured it says.
    pub machine: MachineFacts,
    /// Digest of the OCI image the machine was made from.
    pub root_digest: String,
}

/// An image being written.
#[derive(Debug)]
pub struct Draft {
    dir: PathBuf,
    id: ImageId,
    verified: Verified,
    ram_bytes: Option<u64>,
    /// Level of zstd, if layers are to be compressed.
    zstd_level: Option<i32>,
    layers: Vec<LayerRecord>,
    disks: Vec<(DiskFormat, u64)>,
    /// Files whose bytes may still be only in the page cache.
    unsynced: Vec<PathBuf>,
    finished: bool,
}

impl Draft {
    /// Starts image `id` in the new directory `dir`; an existing directory is refused, whatever is in it.
    pub fn create(dir: &Path, id: ImageId, verified: &Verified) -> Result<Self, ImageError> {
        fs::create_dir(dir).map_err(ImageError::io("create directory", dir))?;
        Ok(Self {
            dir: dir.to_path_buf(),
            id,
            verified: verified.clone(),
            ram_bytes: None,
            zstd_level: None,
            layers: Vec::new(),
            disks: Vec::new(),
            unsynced: Vec::new(),
            finished: false,
        })
    }

    /// Id of the image.
    #[must_use]
    pub fn id(&self) -> &ImageId {
        &self.id
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where device state goes; the driver creates the file.
    #[must_use]
    pub fn state_path(&self) -> PathBuf {
        self.dir.join(names::STATE)
    }

    /// Has every layer that [`Draft::write_layer`] writes from now on compressed with zstd at `level`, 1 (fastest)
    /// to 19 (smallest). Layers that are linked stay as they are.
    pub fn compress(&mut self, level: i32) {
        self.zstd_level = Some(level);
    }

    /// Writes the next RAM layer, packed unless it is to be compressed: full if it is the first one, else a diff over
    /// those before it.
    pub fn write_layer(
        &mut self,
        ram_bytes: u64,
        source: &dyn PageSource,
    ) -> Result<LayerStats, ImageError> {
        let encoding = match self.zstd_level {
            None => Encoding::Packed,
            Some(_) => Encoding::Zstd,
        };
        self.write_layer_as(encoding, ram_bytes, source)
    }

    /// As [`Draft::write_layer`], stored as `encoding` says.
    pub fn write_layer_as(
        &mut self,
        encoding: Encoding,
        ram_bytes: u64,
        source: &dyn PageSource,
    ) -> Result<LayerStats, ImageError> {
        self.agree_on_ram(ram_bytes)?;
        let id =
            LayerId::random().map_err(ImageError::io("draw an id for a layer of", &self.dir))?;
        let kind = if self.layers.is_empty() {
            LayerKind::Full
        } else {
            LayerKind::Diff
        };
        let encoding = (encoding, self.zstd_level.unwrap_or(ZSTD_LEVEL));
        let written = layer::write(&self.dir, &id, kind, encoding, ram_bytes, source)?;
        self.unsynced.push(self.dir.join(names::pages(&id)));
        self.unsynced.push(self.dir.join(names::index(&id)));
        self.layers.push(LayerRecord {
            id,
            pages: written.stats.pages,
            index_blake3: written.index_blake3,
        });
        Ok(written.stats)
    }

    /// Takes over a layer of another image as the next one, by hard link where the file system allows it.
    pub fn link_layer(&mut self, from: &Image, layer: &LayerId) -> Result<Owned, ImageError> {
        self.agree_on_ram(from.manifest().machine.ram_bytes)?;
        let Some(record) = from
            .manifest()
            .layers
            .iter()
            .find(|record| record.id == *layer)
        else {
            return Err(ImageError::Draft {
                what: format!("layer {layer} is not in image {}", from.manifest().image_id),
            });
        };
        let mut owned = Owned::Linked;
        for name in [names::pages(layer), names::index(layer)] {
            let target = self.dir.join(&name);
            let how = link_or_copy(&from.dir().join(&name), &target)?;
            owned = owned.max(how);
            if how != Owned::Linked {
                self.unsynced.push(target);
            }
        }
        self.layers.push(record.clone());
        Ok(owned)
    }

    /// Adds the next file of the disk chain, base first.
    pub fn add_disk(&mut self, disk: &NewDisk) -> Result<Owned, ImageError> {
        let target = self.dir.join(names::disk(self.disks.len()));
        let owned = match disk.how {
            How::Link => link_or_copy(&disk.source, &target)?,
            How::Copy => copy(&disk.source, &target)?,
            How::Move => match fs::rename(&disk.source, &target) {
                Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                    copy(&disk.source, &target)?;
                    fs::remove_file(&disk.source)
                        .map_err(ImageError::io("remove", &disk.source))?;
                    Owned::Copied
                }
                renamed => renamed
                    .map(|()| Owned::Linked)
                    .map_err(ImageError::io("rename", &disk.source))?,
            },
        };
        // A link's bytes are durable only if somebody made them so; syncing a clean file costs nothing.
        self.unsynced.push(target);
        self.disks.push((disk.format, disk.virtual_bytes));
        Ok(owned)
    }

    /// Hashes, makes durable, makes read-only, and writes the manifest. Afterwards the image exists.
    pub fn finish(mut self, facts: ManifestFacts) -> Result<Image, ImageError> {
        if self.ram_bytes != Some(facts.machine.ram_bytes) {
            return Err(ImageError::Draft {
                what: "the RAM layers do not fit the machine".into(),
            });
        }
        let state = self.state_path();
        self.unsynced.push(state.clone());
        for path in &self.unsynced {
            let file = File::open(path).map_err(ImageError::io("open", path))?;
            file.sync_all().map_err(ImageError::io("sync", path))?;
            file.set_permissions(Permissions::from_mode(0o444))
                .map_err(ImageError::io("protect", path))?;
        }
        let manifest = Manifest {
            format: FORMAT_VERSION,
            image_id: self.id.clone(),
            created_at_ms: now_ms(),
            machine: facts.machine,
            root: RootRecord {
                digest: facts.root_digest,
            },
            layers: self.layers.clone(),
            state: StateRecord {
                bytes: fs::metadata(&state)
                    .map_err(ImageError::io("examine", &state))?
                    .len(),
                sha256: self
                    .verified
                    .sha256(&state)
                    .map_err(ImageError::io("read", &state))?,
            },
            disks: self.disk_records()?,
        };
        self.write_manifest(&manifest)?;
        self.finished = true;
        Ok(Image::from_parts(self.dir.clone(), manifest))
    }

    /// Removes what was written.
    pub fn abandon(self) {
        drop(self);
    }

    fn agree_on_ram(&mut self, ram_bytes: u64) -> Result<(), ImageError> {
        match self.ram_bytes.replace(ram_bytes) {
            Some(before) if before != ram_bytes => Err(ImageError::Draft {
                what: format!("layers of {before} and {ram_bytes} bytes of RAM"),
            }),
            _ => Ok(()),
        }
    }

    fn disk_records(&self) -> Result<Vec<DiskRecord>, ImageError> {
        let record = |(position, (format, virtual_bytes)): (usize, &(DiskFormat, u64))| {
            let path = self.dir.join(names::disk(position));
            Ok(DiskRecord {
                format: *format,
                virtual_bytes: *virtual_bytes,
                file_bytes: fs::metadata(&path)
                    .map_err(ImageError::io("examine", &path))?
                    .len(),
                sparse_sha256: self
                    .verified
                    .digest(&path, Kind::Sparse)
                    .map_err(ImageError::io("read", &path))?,
            })
        };
        self.disks.iter().enumerate().map(record).collect()
    }

    fn write_manifest(&self, manifest: &Manifest) -> Result<(), ImageError> {
        let part = self.dir.join(names::MANIFEST_PART);
        let bytes = manifest.encode().map_err(|error| ImageError::Io {
            action: "encode",
            path: part.clone(),
            source: error.into(),
        })?;
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o444)
                .open(&part)?;
            file.write_all(&bytes)?;
            file.sync_all()
        };
        write().map_err(ImageError::io("write", &part))?;
        // The other files' names must be durable before the manifest's can be.
        sync_dir(&self.dir)?;
        fs::rename(&part, self.dir.join(names::MANIFEST))
            .map_err(ImageError::io("rename", &part))?;
        sync_dir(&self.dir)?;
        self.dir.parent().map_or(Ok(()), sync_dir)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(image = %self.id, dir = %self.dir.display(), %error, "cannot remove an unfinished image");
        }
    }
}

fn copy(source: &Path, target: &Path) -> Result<Owned, ImageError> {
    crate::copy_sparse(source, target).map_err(ImageError::io("copy", source))?;
    Ok(Owned::Copied)
}

fn now_ms() -> u64 {
    let age = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}
