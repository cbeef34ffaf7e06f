//! The store of root disks.
//!
//! ```text
//! <dir>/<digest>/rootfs.erofs   read-only root disk
//! <dir>/<digest>/config.json    how to run it; written before the directory gets its name
//! <dir>/.import-*               an import at work, or left behind by a crash
//! <dir>/.lock                   held shared while imports work; whoever has it alone may clean up
//! ```
//!
//! An image is there when its directory is, complete and on the disk. Imports of several images may
//! run at once; of two imports of the same image the later one finds the work done. The daemon calls
//! from blocking threads; it keeps the names, and decides when an image may be removed.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::layer::{self, Budget, Tree};
use crate::source::{self, FoundImage, LayoutDirectory, Parts};
use crate::{Digest, ImageConfig, ImportError, Limits, erofs};

const ROOTFS: &str = "rootfs.erofs";
const RECORD: &str = "config.json";
const SCRATCH_PREFIX: &str = ".import-";

/// Version of the record on disk.
const RECORD_VERSION: u32 = 1;

/// Root disks by the digest of their image.
#[derive(Debug)]
pub struct ImageStore {
    dir: PathBuf,
    /// Held shared for the life of the store, so that no other process cleans up under our imports.
    _lock: File,
}

/// What an import is doing, for a progress display.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// Has read this much of the archive.
    Read {
        /// Bytes so far, uncompressed.
        bytes: u64,
    },
    /// Unpacks a layer.
    Layer {
        /// Number of the layer, the lowest being 1.
        number: usize,
        /// How many there are.
        count: usize,
    },
    /// Makes the root disk.
    RootDisk,
}

/// An image that is in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Digest of the manifest. An archive of `docker save` without an OCI layout has no manifest; the
    /// digest is then that of the line `docker-save config sha256:<hex>` about its config.
    pub digest: Digest,
    /// The names that the archive gives the image, as they stand there.
    pub references: Vec<String>,
    /// How to run it.
    pub config: ImageConfig,
    /// Size of the root disk.
    pub size_bytes: u64,
    /// Digest of the root disk.
    pub rootfs_sha256: Digest,
    /// The image was in the store before; nothing was unpacked.
    pub already_present: bool,
}

/// The file `config.json` of an image.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    digest: Digest,
    config: ImageConfig,
    size_bytes: u64,
    rootfs_sha256: Digest,
}

impl ImageStore {
    /// Opens the store in a directory, which is created if need be. What a crashed import left behind
    /// is removed, unless another process is at work in the same store.
    pub fn open(dir: &Path) -> Result<Self, ImportError> {
        fs::create_dir_all(dir).map_err(ImportError::io("create", dir))?;
        let path = dir.join(".lock");
        let lock = File::create(&path).map_err(ImportError::io("create", &path))?;
        match lock.try_lock() {
            Ok(()) => remove_leftovers(dir)?,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => return Err(ImportError::io("lock", path)(source)),
        }
        lock.lock_shared().map_err(ImportError::io("lock", &path))?;
        Ok(Self {
            dir: dir.into(),
            _lock: lock,
        })
    }

    /// Imports an OCI archive or the output of `docker save`, compressed or not. Blocks for as long as
    /// reading, unpacking and making the root disk take.
    pub fn import(
        &self,
        source: impl Read,
        limits: &Limits,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Imported, ImportError> {
        let scratch = self.scratch()?;
        let parts = source::spool(source, &scratch.subdir("parts")?, limits, progress)?;
        self.import_parts(&scratch, &parts, limits, progress)
    }

    /// Imports an OCI layout from a directory of this host. The directory is only read.
    pub fn import_layout(
        &self,
        dir: &Path,
        limits: &Limits,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Imported, ImportError> {
        let scratch = self.scratch()?;
        self.import_parts(&scratch, &LayoutDirectory::open(dir)?, limits, progress)
    }

    /// Where the root disk of an image is. None if the image is not in the store.
    pub fn rootfs(&self, digest: &Digest) -> Option<PathBuf> {
        let path = self.dir.join(digest.hex()).join(ROOTFS);
        path.is_file().then_some(path)
    }

    /// What the store knows of an image, without the names. None if the image is not in the store.
    pub fn get(&self, digest: &Digest) -> Result<Option<Imported>, ImportError> {
        let path = self.dir.join(digest.hex()).join(RECORD);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(ImportError::io("read", &path))?,
        };
        let record: Record = serde_json::from_slice(&bytes)
            .map_err(|error| ImportError::malformed(&path.to_string_lossy(), error))?;
        if record.version != RECORD_VERSION || record.digest != *digest {
            let reason = format!("of version {} for {}", record.version, record.digest);
            return Err(ImportError::malformed(&path.to_string_lossy(), reason));
        }
        Ok(Some(Imported {
            digest: record.digest,
            references: Vec::new(),
            config: record.config,
            size_bytes: record.size_bytes,
            rootfs_sha256: record.rootfs_sha256,
            already_present: true,
        }))
    }

    /// Removes an image. Machines that have its root disk open keep it until they close it. Says
    /// whether it was there.
    pub fn remove(&self, digest: &Digest) -> Result<bool, ImportError> {
        let scratch = self.scratch()?;
        let path = self.dir.join(digest.hex());
        // In one step, so that a crash does not leave half an image under its name.
        match fs::rename(&path, scratch.dir.path().join("removed")) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            other => {
                other.map_err(ImportError::io("remove", &path))?;
                sync_dir(&self.dir)?;
                Ok(true)
            }
        }
    }

    /// Every image in the store.
    pub fn digests(&self) -> Result<Vec<Digest>, ImportError> {
        let mut digests = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(ImportError::io("list", &self.dir))? {
            let entry = entry.map_err(ImportError::io("list", &self.dir))?;
            if let Ok(digest) = Digest::from_hex(&entry.file_name().to_string_lossy()) {
                digests.push(digest);
            }
        }
        digests.sort();
        Ok(digests)
    }

    fn import_parts(
        &self,
        scratch: &Scratch,
        parts: &dyn Parts,
        limits: &Limits,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Imported, ImportError> {
        let image = source::find_image(parts, limits)?;
        if let Some(present) = self.get(&image.digest)? {
            return Ok(Imported {
                references: image.references,
                ..present
            });
        }
        let ready = scratch.subdir("image")?;
        let rootfs = ready.join(ROOTFS);
        unpack(&image, &scratch.subdir("root")?, limits, progress)?;
        progress(Progress::RootDisk);
        erofs::make(&scratch.dir.path().join("root"), &rootfs, &image.digest)?;
        let (size_bytes, rootfs_sha256) = finish_file(&rootfs)?;
        let imported = Imported {
            digest: image.digest,
            references: image.references,
            config: image.config,
            size_bytes,
            rootfs_sha256,
            already_present: false,
        };
        write_record(&ready.join(RECORD), &imported)?;
        self.publish(&ready, imported)
    }

    /// Gives a finished image its name.
    fn publish(&self, ready: &Path, imported: Imported) -> Result<Imported, ImportError> {
        sync_dir(ready)?;
        let target = self.dir.join(imported.digest.hex());
        match fs::rename(ready, &target) {
            Ok(()) => {
                sync_dir(&self.dir)?;
                tracing::info!(digest = %imported.digest, "image imported");
                Ok(imported)
            }
            // Another import of the same image was faster.
            Err(_) if target.is_dir() => Ok(Imported {
                already_present: true,
                ..imported
            }),
            Err(source) => Err(ImportError::io("rename", ready)(source)),
        }
    }

    fn scratch(&self) -> Result<Scratch, ImportError> {
        let dir = tempfile::Builder::new()
            .prefix(SCRATCH_PREFIX)
            .tempdir_in(&self.dir)
            .map_err(ImportError::io("create a directory in", &self.dir))?;
        Ok(Scratch { dir })
    }
}

/// The private directory of one import, removed with all its content however the import ends.
struct Scratch {
    dir: TempDir,
}

impl Scratch {
    fn subdir(&self, name: &str) -> Result<PathBuf, ImportError> {
        let path = self.dir.path().join(name);
        fs::create_dir(&path).map_err(ImportError::io("create", &path))?;
        Ok(path)
    }
}

fn unpack(
    image: &FoundImage,
    dir: &Path,
    limits: &Limits,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), ImportError> {
    if !rustix::process::geteuid().is_root() {
        return Err(ImportError::NotRoot);
    }
    // Layers that say nothing about the root directory mean this.
    fs::set_permissions(dir, Permissions::from_mode(0o755))
        .map_err(ImportError::io("open up", dir))?;
    let mut tree = Tree::new(dir, limits).map_err(ImportError::io("open", dir))?;
    let mut budget = Budget::new(limits);
    for (index, blob) in image.layers.iter().enumerate() {
        progress(Progress::Layer {
            number: index + 1,
            count: image.layers.len(),
        });
        layer::apply(&mut tree, dir, index, blob, &mut budget)?;
    }
    tree.settle().map_err(ImportError::io("set times in", dir))
}

/// Takes away write permission, brings a file to the disk and gives its size and digest.
fn finish_file(path: &Path) -> Result<(u64, Digest), ImportError> {
    use sha2::{Digest as _, Sha256};

    let mut file = File::open(path).map_err(ImportError::io("open", path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 17];
    let mut size = 0;
    loop {
        let count = file
            .read(&mut buffer)
            .map_err(ImportError::io("read", path))?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        size += count as u64;
    }
    file.set_permissions(Permissions::from_mode(0o444))
        .and_then(|()| file.sync_all())
        .map_err(ImportError::io("sync", path))?;
    Ok((size, Digest::from_hasher(hasher)))
}

fn write_record(path: &Path, imported: &Imported) -> Result<(), ImportError> {
    let record = Record {
        version: RECORD_VERSION,
        digest: imported.digest,
        config: imported.config.clone(),
        size_bytes: imported.size_bytes,
        rootfs_sha256: imported.rootfs_sha256,
    };
    let bytes = serde_json::to_vec_pretty(&record)
        .map_err(|error| ImportError::malformed(RECORD, error))?;
    fs::write(path, bytes).map_err(ImportError::io("write", path))?;
    finish_file(path).map(drop)
}

fn sync_dir(dir: &Path) -> Result<(), ImportError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(ImportError::io("sync", dir))
}

fn remove_leftovers(dir: &Path) -> Result<(), ImportError> {
    for entry in fs::read_dir(dir).map_err(ImportError::io("list", dir))? {
        let entry = entry.map_err(ImportError::io("list", dir))?;
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with(SCRATCH_PREFIX)
        {
            let path = entry.path();
            tracing::info!(path = %path.display(), "removing what a crashed import left behind");
            fs::remove_dir_all(&path).map_err(ImportError::io("remove", &path))?;
        }
    }
    Ok(())
}
