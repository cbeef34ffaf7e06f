//! RAM of images in memory: each stack of layers once, sealed, for any number of forks.
//!
//! The loader remembers loaded RAM weakly: it lives as long as a machine or a template hold keeps its [`LoadedRam`].
//! Two callers that want the same stack at once share one copy: the second waits for the first.
//! Called from blocking tasks of drivers.
//!
//! RAM that a running VMM gives back after a restart of the daemon is a hint and no more: a VMM that its guest has
//! taken over can give any memfd the right name. It is compared with the image before the first machine shares it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::fs::{MemfdFlags, OFlags, SealFlags};

use crate::compare;

use crate::error::ImageError;
use crate::image::Image;
use crate::layer;
use crate::manifest::LayerRecord;
use crate::ram::OwnRam;
use crate::runs::PAGE_BYTES;
use crate::verified::Verified;

/// Prefix of the memfd's name; the key follows. An adopting daemon finds the memfd by it.
const MEMFD_PREFIX: &str = "coppice-ram-";

/// Name of a stack of layers: a hash of the layers' ids and index digests and the size of RAM.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RamKey(String);

impl RamKey {
    fn of(layers: &[LayerRecord], ram_bytes: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&ram_bytes.to_le_bytes());
        for layer in layers {
            hasher.update(layer.id.as_str().as_bytes());
            hasher.update(layer.index_blake3.as_bytes());
        }
        Self(hasher.finalize().to_hex()[..32].to_owned())
    }
}

/// Verified guest RAM in a sealed memfd. Map it privately; nobody can write to it, this process included.
#[derive(Debug)]
pub struct LoadedRam {
    fd: OwnedFd,
    ram_bytes: u64,
    key: RamKey,
    /// Known to hold what its name says; not so at first where a VMM gave it.
    verified: AtomicBool,
}

impl LoadedRam {
    /// Size of guest RAM in bytes.
    #[must_use]
    pub fn ram_bytes(&self) -> u64 {
        self.ram_bytes
    }

    /// Name of the stack of layers it was made from.
    #[must_use]
    pub fn key(&self) -> &RamKey {
        &self.key
    }

    /// Whether it holds what `layers` of `image` say. The caller holds its slot, so nobody compares beside it.
    fn is_intact(&self, image: &Image, layers: &[LayerRecord]) -> Result<bool, ImageError> {
        if self.verified.load(Ordering::Acquire) {
            return Ok(true);
        }
        let intact = self.ram_bytes == image.manifest().machine.ram_bytes
            && compare::holds(self.fd.as_fd(), image, layers)?;
        if !intact {
            tracing::error!(image = %image.manifest().image_id, "a VMM gave RAM that is not the image's; it is not used");
        }
        self.verified.store(intact, Ordering::Release);
        Ok(intact)
    }

    /// Bytes it occupies now. Grows by zero pages when forks read RAM that no layer holds.
    pub fn resident_bytes(&self) -> io::Result<u64> {
        let blocks = rustix::fs::fstat(&self.fd)?.st_blocks;
        Ok(u64::try_from(blocks).unwrap_or(0) * 512)
    }
}

impl AsFd for LoadedRam {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Loads RAM; one per process.
#[derive(Debug, Default)]
pub struct Loader {
    verified: Verified,
    slots: Mutex<HashMap<RamKey, Arc<Slot>>>,
}

/// Held while RAM of its key is being copied.
type Slot = Mutex<Weak<LoadedRam>>;

impl Loader {
    /// A loader with no RAM loaded that shares what `verified` knows.
    #[must_use]
    pub fn new(verified: Verified) -> Self {
        Self {
            verified,
            slots: Mutex::default(),
        }
    }

    /// The digests that this loader shares.
    #[must_use]
    pub fn verified(&self) -> &Verified {
        &self.verified
    }

    /// RAM of the first `layer_count` layers of `image`: what is loaded already, or a fresh verified copy.
    pub fn load(&self, image: &Image, layer_count: usize) -> Result<Arc<LoadedRam>, ImageError> {
        let layers = stack(image, layer_count)?;
        let ram_bytes = image.manifest().machine.ram_bytes;
        let key = RamKey::of(layers, ram_bytes);
        let slot = self.slot(&key);
        let mut ram = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = ram.upgrade()
            && loaded.is_intact(image, layers)?
        {
            return Ok(loaded);
        }
        let fd = sealed_copy(image, layers, &key)?;
        let loaded = Arc::new(LoadedRam {
            fd,
            ram_bytes,
            key,
            verified: AtomicBool::new(true),
        });
        *ram = Arc::downgrade(&loaded);
        Ok(loaded)
    }

    /// As [`Loader::load`], but gives `None` instead of copying.
    pub fn loaded(
        &self,
        image: &Image,
        layer_count: usize,
    ) -> Result<Option<Arc<LoadedRam>>, ImageError> {
        let layers = stack(image, layer_count)?;
        let key = RamKey::of(layers, image.manifest().machine.ram_bytes);
        let slot = self.slot(&key);
        let ram = slot.lock().unwrap_or_else(PoisonError::into_inner);
        match ram.upgrade() {
            Some(loaded) if loaded.is_intact(image, layers)? => Ok(Some(loaded)),
            _ => Ok(None),
        }
    }

    /// A verified copy of all layers that belongs to one machine and may be written.
    pub fn copy(&self, image: &Image) -> Result<OwnRam, ImageError> {
        let manifest = image.manifest();
        let ram = OwnRam::empty(manifest.machine.ram_bytes)
            .map_err(ImageError::io("make RAM for", image.dir()))?;
        fill(image, &manifest.layers, ram.as_fd())?;
        Ok(ram)
    }

    /// Reads layer `position` of `image`, verified, giving pieces (first page, bytes) to `place`.
    pub fn read_layer(
        &self,
        image: &Image,
        position: usize,
        place: impl FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> Result<(), ImageError> {
        let layers = stack(image, position + 1)?;
        layer::read_pages(&mut image.layer(&layers[position])?, place)
    }

    /// Takes over sealed RAM that a running VMM holds open, given as `/proc/<pid>/fd/<n>`, for example after the
    /// daemon was restarted. `None` if that descriptor has not the name of loaded RAM or is not sealed. Its content is
    /// not read here, which would hold up the start of the daemon, but by whoever first loads what it claims to be.
    pub fn adopt(&self, descriptor: &Path) -> io::Result<Option<Arc<LoadedRam>>> {
        let link = std::fs::read_link(descriptor)?;
        let name = link.to_string_lossy();
        let Some(key) = name
            .strip_prefix("/memfd:")
            .and_then(|name| name.strip_prefix(MEMFD_PREFIX))
        else {
            return Ok(None);
        };
        let key = RamKey(key.trim_end_matches(" (deleted)").to_owned());
        // What the link names may be another file by now; opening a FIFO must not wait for a writer.
        let file = File::options()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(descriptor)?;
        let sealed =
            rustix::fs::fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(all_seals()));
        if !sealed {
            return Ok(None);
        }
        let slot = self.slot(&key);
        let mut ram = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = ram.upgrade() {
            return Ok(Some(loaded));
        }
        let ram_bytes = file.metadata()?.size();
        let loaded = Arc::new(LoadedRam {
            fd: file.into(),
            ram_bytes,
            key,
            verified: AtomicBool::new(false),
        });
        *ram = Arc::downgrade(&loaded);
        Ok(Some(loaded))
    }

    /// The slot of `key`. Slots nobody uses are dropped on the way, so the map stays as small as what is loaded.
    fn slot(&self, key: &RamKey) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| {
            Arc::strong_count(slot) > 1
                || slot.try_lock().map_or(true, |ram| ram.strong_count() > 0)
        });
        slots.entry(key.clone()).or_default().clone()
    }
}

fn stack(image: &Image, layer_count: usize) -> Result<&[LayerRecord], ImageError> {
    match image.manifest().layers.get(..layer_count) {
        Some(layers) if layer_count > 0 => Ok(layers),
        _ => Err(ImageError::corrupt(
            crate::names::MANIFEST,
            format!("layers: {layer_count} are needed"),
        )),
    }
}

fn all_seals() -> SealFlags {
    SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE
}

fn sealed_copy(image: &Image, layers: &[LayerRecord], key: &RamKey) -> Result<OwnedFd, ImageError> {
    let failed =
        |error: rustix::io::Errno| ImageError::io("make RAM for", image.dir())(error.into());
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create(format!("{MEMFD_PREFIX}{}", key.0), flags).map_err(failed)?;
    rustix::fs::ftruncate(&fd, image.manifest().machine.ram_bytes).map_err(failed)?;
    fill(image, layers, fd.as_fd())?;
    rustix::fs::fcntl_add_seals(&fd, all_seals()).map_err(failed)?;
    Ok(fd)
}

/// Writes the layers into `ram`, lowest first, so that the newest page of each number stays.
fn fill(image: &Image, layers: &[LayerRecord], ram: BorrowedFd<'_>) -> Result<(), ImageError> {
    let ram = ram
        .try_clone_to_owned()
        .map(File::from)
        .map_err(ImageError::io("make RAM for", image.dir()))?;
    for record in layers {
        layer::read_pages(&mut image.layer(record)?, |first, bytes| {
            ram.write_all_at(bytes, first * PAGE_BYTES as u64)
        })?;
    }
    Ok(())
}
