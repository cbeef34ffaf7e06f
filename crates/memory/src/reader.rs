//! Reading a layer chunk by chunk, each checked before anybody sees a byte of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use zstd::bulk::Decompressor;

use crate::error::ImageError;
use crate::index::{Encoding, Index, sum};
use crate::runs::{PAGE_BYTES, Run};
use crate::{LayerId, layer, names};

/// An open layer. Its pages are counted in the order of its runs: the first page of the first run has position 0.
pub struct LayerReader {
    path: PathBuf,
    name: String,
    file: File,
    index: Index,
    /// Position of the first page of each run.
    starts: Vec<u64>,
    /// Where each compressed chunk begins in the file; empty unless they are compressed.
    offsets: Vec<u64>,
    compressed: Vec<u8>,
    decompressor: Option<Decompressor<'static>>,
}

impl std::fmt::Debug for LayerReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerReader")
            .field("path", &self.path)
            .field("encoding", &self.index.encoding)
            .finish_non_exhaustive()
    }
}

impl LayerReader {
    /// Opens the pages of `layer`, whose `index` was read and checked.
    pub(crate) fn open(dir: &Path, layer: &LayerId, index: Index) -> Result<Self, ImageError> {
        let name = names::pages(layer);
        let path = dir.join(&name);
        let file = layer::open_exact(&path, &name, index.file_bytes())?;
        let sums = |counts: &mut dyn Iterator<Item = u64>| {
            let mut at = 0;
            let mut starts = Vec::new();
            for count in counts {
                starts.push(at);
                at += count;
            }
            starts
        };
        let starts = sums(&mut index.runs.iter().map(|run| run.count));
        let offsets = sums(&mut index.stored.iter().copied().map(u64::from));
        let decompressor = match index.encoding {
            Encoding::Packed | Encoding::Flat => None,
            Encoding::Zstd => Some(Decompressor::new().map_err(ImageError::io("decode", &path))?),
        };
        Ok(Self {
            path,
            name,
            file,
            index,
            starts,
            offsets,
            compressed: Vec::new(),
            decompressor,
        })
    }

    /// The file with the pages.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Its path when it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the file in bytes.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.index.file_bytes()
    }

    /// Bytes that the pages take on the disk, holes left out.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.index.stored_bytes()
    }

    /// How the pages are stored.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.index.encoding
    }

    /// Pages held, ordered and disjoint.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.index.runs
    }

    /// Number of chunks.
    #[must_use]
    pub fn chunk_count(&self) -> usize {
        self.index.chunks.len()
    }

    /// Bytes of pages in `chunk`; only the last one has fewer than [`Encoding::chunk_bytes`].
    #[must_use]
    pub fn chunk_len(&self, chunk: usize) -> usize {
        let size = self.index.encoding.chunk_bytes();
        let before = chunk as u64 * size as u64;
        let left = self.index.pages_bytes().saturating_sub(before);
        usize::try_from(left).map_or(size, |left| left.min(size))
    }

    /// Pages of `chunk`, as pieces of the layer's runs.
    pub fn chunk_runs(&self, chunk: usize) -> impl Iterator<Item = Run> {
        let per_chunk = (self.index.encoding.chunk_bytes() / PAGE_BYTES) as u64;
        let first = chunk as u64 * per_chunk;
        let end = first + (self.chunk_len(chunk) / PAGE_BYTES) as u64;
        let nth = self.starts.partition_point(|start| *start <= first);
        let nth = nth.saturating_sub(1);
        let pieces = self.index.runs.iter().zip(&self.starts).skip(nth);
        pieces
            .take_while(move |(_, start)| **start < end)
            .map(move |(run, start)| {
                let from = first.max(*start);
                Run {
                    first: run.first + (from - start),
                    count: end.min(start + run.count) - from,
                }
            })
    }

    /// Reads and checks `chunk` into `buffer`, which has [`LayerReader::chunk_len`] bytes.
    pub fn read_chunk(&mut self, chunk: usize, buffer: &mut [u8]) -> Result<(), ImageError> {
        let size = self.index.encoding.chunk_bytes() as u64;
        let failed = ImageError::io("read", &self.path);
        match self.index.encoding {
            Encoding::Packed => self.file.read_exact_at(buffer, chunk as u64 * size),
            Encoding::Flat => self.read_scattered(chunk, buffer),
            Encoding::Zstd => {
                // Lengths were checked with the index: they exceed a chunk by a kilobyte at most.
                self.compressed.resize(self.index.stored[chunk] as usize, 0);
                self.file
                    .read_exact_at(&mut self.compressed, self.offsets[chunk])
            }
        }
        .map_err(failed)?;
        let stored = match &self.decompressor {
            None => &*buffer,
            Some(_) => &self.compressed,
        };
        if sum(stored) != self.index.chunks[chunk] {
            return Err(self.corrupt(chunk, "checksum"));
        }
        if let Some(decompressor) = &mut self.decompressor
            && !decompressor
                .decompress_to_buffer(&self.compressed, buffer)
                .is_ok_and(|length| length == buffer.len())
        {
            return Err(self.corrupt(chunk, "compressed data"));
        }
        Ok(())
    }

    fn read_scattered(&self, chunk: usize, mut buffer: &mut [u8]) -> io::Result<()> {
        for run in self.chunk_runs(chunk) {
            // At most the pages of one chunk, so the product fits.
            let (piece, rest) = buffer.split_at_mut(run.count as usize * PAGE_BYTES);
            self.file
                .read_exact_at(piece, run.first * PAGE_BYTES as u64)?;
            buffer = rest;
        }
        Ok(())
    }

    fn corrupt(&self, chunk: usize, what: &str) -> ImageError {
        ImageError::corrupt(self.name.clone(), format!("{what} of chunk {chunk}"))
    }
}
