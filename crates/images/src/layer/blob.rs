//! A layer's bytes: decompressed, counted, and compared with their digests.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::rc::Rc;

use sha2::{Digest as _, Sha256};

use crate::{Digest, ImportError, Limit, Limits};

/// A layer of an archive that is being imported.
pub(crate) struct LayerBlob {
    /// Where its compressed bytes are.
    pub path: PathBuf,
    /// Its name in the archive.
    pub name: String,
    /// Digest of the compressed bytes. `docker save` gives none.
    pub blob_digest: Option<Digest>,
    /// Digest of the uncompressed bytes, from the image's config.
    pub diff_id: Digest,
}

/// Reads a layer uncompressed. Give it back to [`LayerReader::finish`] to have the digests compared.
pub(crate) struct LayerReader {
    decoded: Box<dyn Read>,
    raw: Rc<RefCell<Hashing<File>>>,
    hasher: Sha256,
    unpacked: u64,
    /// Uncompressed bytes that may still come, for this layer and all after it.
    allowance: Rc<Cell<u64>>,
    ratio: u64,
    met: Rc<Cell<Option<Limit>>>,
}

impl LayerBlob {
    /// Opens the layer. `allowance` is lessened by every uncompressed byte read.
    pub(crate) fn open(
        &self,
        limits: &Limits,
        allowance: Rc<Cell<u64>>,
    ) -> Result<LayerReader, ImportError> {
        let file = File::open(&self.path).map_err(ImportError::io("open", &self.path))?;
        let raw = Rc::new(RefCell::new(Hashing {
            inner: file,
            hasher: Sha256::new(),
            read: 0,
        }));
        let decoded = decoder(Shared(Rc::clone(&raw))).map_err(ImportError::Read)?;
        Ok(LayerReader {
            decoded,
            raw,
            hasher: Sha256::new(),
            unpacked: 0,
            allowance,
            ratio: limits.compression_ratio,
            met: Rc::default(),
        })
    }
}

impl LayerReader {
    /// The limit that made reading fail, if one did. Shared, so that it can be asked after the reader
    /// was given away.
    pub(crate) fn limit_met(&self) -> Rc<Cell<Option<Limit>>> {
        Rc::clone(&self.met)
    }

    /// Reads what is left and compares both digests.
    pub(crate) fn finish(mut self, blob: &LayerBlob) -> Result<(), ImportError> {
        // Builders pad the end of the archive with zeros, which belong to the digest.
        io::copy(&mut self, &mut io::sink()).map_err(ImportError::Read)?;
        drop(self.decoded);
        let mut raw = self.raw.borrow_mut();
        io::copy(&mut *raw, &mut io::sink()).map_err(ImportError::Read)?;
        let blob_digest = Digest::from_hasher(raw.hasher.clone());
        if let Some(expected) = blob.blob_digest {
            check(&blob.name, expected, blob_digest)?;
        }
        let what = format!("{} uncompressed", blob.name);
        check(&what, blob.diff_id, Digest::from_hasher(self.hasher))
    }

    fn limit_exceeded(&self) -> Option<Limit> {
        if self.allowance.get() == 0 {
            return Some(Limit::UnpackedBytes);
        }
        let read = self.raw.borrow().read;
        let is_bomb =
            self.unpacked > Limits::RATIO_FREE_BYTES && self.unpacked / self.ratio.max(1) > read;
        is_bomb.then_some(Limit::CompressionRatio)
    }
}

impl Read for LayerReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(limit) = self.limit_exceeded() {
            self.met.set(Some(limit));
            return Err(io::Error::other("a limit was met"));
        }
        let count = self.decoded.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.unpacked += count as u64;
        self.allowance
            .set(self.allowance.get().saturating_sub(count as u64));
        Ok(count)
    }
}

/// Fails unless content has the digest it was announced with.
pub(crate) fn check(what: &str, expected: Digest, actual: Digest) -> Result<(), ImportError> {
    if expected == actual {
        return Ok(());
    }
    Err(ImportError::DigestMismatch {
        what: what.into(),
        expected,
        actual,
    })
}

/// Decompresses by what the bytes are, not by what the manifest calls them: they disagree in practice.
fn decoder(raw: Shared) -> io::Result<Box<dyn Read>> {
    const GZIP: &[u8] = &[0x1f, 0x8b];
    const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

    let mut buffered = BufReader::with_capacity(1 << 16, raw);
    let start = buffered.fill_buf()?;
    Ok(if start.starts_with(GZIP) {
        Box::new(flate2::bufread::MultiGzDecoder::new(buffered))
    } else if start.starts_with(ZSTD) {
        Box::new(zstd::Decoder::with_buffer(buffered)?)
    } else {
        Box::new(buffered)
    })
}

struct Hashing<R> {
    inner: R,
    hasher: Sha256,
    read: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.read += count as u64;
        Ok(count)
    }
}

/// The raw bytes, which the decoder reads and the end of the import reads on.
struct Shared(Rc<RefCell<Hashing<File>>>);

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().read(buffer)
    }
}
