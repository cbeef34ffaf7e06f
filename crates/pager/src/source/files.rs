//! The layers of an image on disk.
//!
//! Pages that are stored as they are get copied by the kernel straight from the page cache, once their chunk was
//! read and checked. Compressed chunks are kept unpacked in a cache of bounded size.

use std::io;

use memory::{Encoding, Image, ImageError, LayerReader, PAGE_BYTES, Run};

use super::Source;
use super::cache::{ChunkCache, ChunkId};
use crate::layout::{Extent, Layout};
use crate::sys::{Bytes, FileMap};

/// An open layer.
#[derive(Debug)]
struct Layer {
    reader: LayerReader,
    map: FileMap,
    /// Chunks that passed their check. Finished images are never written, so once is enough.
    checked: Vec<bool>,
}

/// All layers of an image. After opening, no file needs to be opened again.
#[derive(Debug)]
pub(crate) struct LayerFiles {
    layers: Vec<Layer>,
    cache: ChunkCache,
    scratch: Vec<u8>,
}

impl LayerFiles {
    /// Opens the layers of `image` and reads their indexes, which say where each page comes from.
    pub(crate) fn open(image: &Image, cache_bytes: usize) -> Result<(Self, Layout), ImageError> {
        let mut layers = Vec::new();
        for record in &image.manifest().layers {
            let reader = image.layer(record)?;
            let length = match reader.encoding() {
                Encoding::Packed | Encoding::Flat => reader.file_bytes(),
                Encoding::Zstd => 0,
            };
            let failed = |source: io::Error| ImageError::Io {
                action: "map",
                path: reader.path().to_path_buf(),
                source,
            };
            let map = FileMap::map(reader.file(), length).map_err(failed)?;
            layers.push(Layer {
                map,
                checked: vec![false; reader.chunk_count()],
                reader,
            });
        }
        let pages = image.manifest().machine.ram_bytes / PAGE_BYTES as u64;
        let layout = Layout::new(pages, layers.iter().map(|layer| layer.reader.runs()));
        let files = Self {
            layers,
            cache: ChunkCache::new(cache_bytes),
            scratch: Vec::new(),
        };
        Ok((files, layout))
    }

    /// Checks `chunk` if nobody has yet.
    fn check(&mut self, layer: usize, chunk: usize) -> Result<(), ImageError> {
        let Layer {
            reader,
            map,
            checked,
        } = &mut self.layers[layer];
        if checked[chunk] {
            return Ok(());
        }
        self.scratch.resize(reader.chunk_len(chunk), 0);
        reader.read_chunk(chunk, &mut self.scratch)?;
        checked[chunk] = true;
        match reader.encoding() {
            Encoding::Packed => {
                let offset = chunk as u64 * reader.encoding().chunk_bytes() as u64;
                map.populate(offset, reader.chunk_len(chunk));
            }
            Encoding::Flat => {
                for run in reader.chunk_runs(chunk) {
                    map.populate(run.first * PAGE_BYTES as u64, bytes_of(run));
                }
            }
            Encoding::Zstd => {}
        }
        Ok(())
    }

    /// The part of `extent` in its first chunk: which chunk, where in it, how many bytes.
    fn first_part(&self, extent: Extent) -> (usize, usize, usize) {
        let chunk_bytes = self.layers[extent.layer].reader.encoding().chunk_bytes() as u64;
        let start = extent.position * PAGE_BYTES as u64;
        let inside = start % chunk_bytes;
        let bytes = (extent.run.count * PAGE_BYTES as u64).min(chunk_bytes - inside);
        // All but the first number are at most a chunk, and chunks are counted by a vector.
        (
            (start / chunk_bytes) as usize,
            inside as usize,
            bytes as usize,
        )
    }

    /// The chunk, unpacked.
    fn unpacked(&mut self, layer: usize, chunk: usize) -> Result<&[u8], ImageError> {
        let reader = &mut self.layers[layer].reader;
        let len = reader.chunk_len(chunk);
        self.cache.get(ChunkId { layer, chunk }, len, |buffer| {
            reader.read_chunk(chunk, buffer)
        })
    }
}

fn bytes_of(run: Run) -> usize {
    // Runs lie in guest RAM, whose size in bytes fits.
    run.count as usize * PAGE_BYTES
}

impl Source for LayerFiles {
    fn read(&mut self, extent: Extent) -> Result<Bytes<'_>, ImageError> {
        let (chunk, inside, bytes) = self.first_part(extent);
        let encoding = self.layers[extent.layer].reader.encoding();
        if encoding == Encoding::Zstd {
            let unpacked = self.unpacked(extent.layer, chunk)?;
            return Ok(Bytes::from(&unpacked[inside..inside + bytes]));
        }
        self.check(extent.layer, chunk)?;
        // What follows may be checked as well, and then goes with it: one large copy is cheaper than several.
        let mut whole = bytes;
        let layer = &self.layers[extent.layer];
        let mut next = chunk + 1;
        while whole < bytes_of(extent.run) && layer.checked.get(next) == Some(&true) {
            whole = bytes_of(extent.run).min(whole + layer.reader.chunk_len(next));
            next += 1;
        }
        let offset = match encoding {
            Encoding::Flat => extent.run.first,
            Encoding::Packed | Encoding::Zstd => extent.position,
        } * PAGE_BYTES as u64;
        layer
            .map
            .bytes(offset, whole)
            .ok_or_else(|| ImageError::Io {
                action: "reach pages of",
                path: layer.reader.path().to_path_buf(),
                source: io::ErrorKind::UnexpectedEof.into(),
            })
    }

    fn read_into(&mut self, extent: Extent, buffer: &mut [u8]) -> Result<(), ImageError> {
        let mut extent = extent;
        let mut rest = buffer;
        while !rest.is_empty() {
            let (chunk, inside, bytes) = self.first_part(extent);
            let unpacked = self.unpacked(extent.layer, chunk)?;
            let (piece, after) = rest.split_at_mut(bytes);
            piece.copy_from_slice(&unpacked[inside..inside + bytes]);
            rest = after;
            let pages = (bytes / PAGE_BYTES) as u64;
            extent.run.first += pages;
            extent.run.count -= pages;
            extent.position += pages;
        }
        Ok(())
    }
}
