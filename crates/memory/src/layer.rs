//! RAM layers: writing pages with their index, reading them back with every chunk checked.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use zstd::bulk::Compressor;
use zstd::zstd_safe::compress_bound;

use crate::digest::is_zero;
use crate::error::ImageError;
use crate::index::{Encoding, Index, sum};
use crate::reader::LayerReader;
use crate::runs::{PAGE_BYTES, Run, append_page, page_count};
use crate::{LayerId, names};

/// The fastest. RAM is dominated by text and pointers, which higher levels hardly make smaller.
pub(crate) const ZSTD_LEVEL: i32 = 1;

/// What a layer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayerKind {
    /// The first layer: pages that are not in it are zero, so zero pages are dropped.
    Full,
    /// Pages that differ from the layers below. Zero pages are kept: they may hide others.
    Diff,
}

/// Where a layer's pages come from, usually the memory of a stopped VMM.
pub trait PageSource {
    /// The pages to write, ordered and disjoint.
    fn runs(&self) -> &[Run];
    /// Fills `buffer` (a multiple of the page size, inside one run) from page `first` on.
    fn read(&self, first: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// Size of a layer that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerStats {
    /// Pages in the layer.
    pub pages: u64,
    /// Bytes of the stored pages and the index.
    pub bytes: u64,
}

/// A layer's files, written but not yet durable.
pub(crate) struct WrittenLayer {
    pub(crate) index_blake3: String,
    pub(crate) stats: LayerStats,
}

/// Writes the two files of `layer` into `dir`; `level` is that of zstd.
pub(crate) fn write(
    dir: &Path,
    layer: &LayerId,
    kind: LayerKind,
    (encoding, level): (Encoding, i32),
    ram_bytes: u64,
    source: &dyn PageSource,
) -> Result<WrittenLayer, ImageError> {
    let path = dir.join(names::pages(layer));
    let file = create(&path)?;
    let packer = Packer::new(file, kind, (encoding, level), ram_bytes);
    let mut packer = packer.map_err(ImageError::io("write", &path))?;
    for run in source.runs() {
        packer
            .add(*run, source)
            .map_err(ImageError::io("write", &path))?;
    }
    let index = packer.finish().map_err(ImageError::io("write", &path))?;
    let too_large = |_| ImageError::Draft {
        what: "guest RAM is too large for the index".into(),
    };
    let bytes = index.encode().map_err(too_large)?;
    let index_path = dir.join(names::index(layer));
    let mut index_file = create(&index_path)?;
    index_file
        .write_all(&bytes)
        .map_err(ImageError::io("write", &index_path))?;
    Ok(WrittenLayer {
        index_blake3: blake3::hash(&bytes).to_hex().to_string(),
        stats: LayerStats {
            pages: page_count(&index.runs),
            bytes: index.stored_bytes() + bytes.len() as u64,
        },
    })
}

fn create(path: &Path) -> Result<File, ImageError> {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(ImageError::io("create", path))
}

struct Packer {
    file: File,
    kind: LayerKind,
    buffer: Vec<u8>,
    filled: usize,
    /// The pages in the buffer.
    buffered: Vec<Run>,
    compressed: Vec<u8>,
    compressor: Option<Compressor<'static>>,
    index: Index,
}

impl Packer {
    fn new(
        file: File,
        kind: LayerKind,
        (encoding, level): (Encoding, i32),
        ram_bytes: u64,
    ) -> io::Result<Self> {
        let compressor = match encoding {
            Encoding::Packed => None,
            Encoding::Flat => {
                file.set_len(ram_bytes)?;
                None
            }
            Encoding::Zstd => Some(Compressor::new(level)?),
        };
        Ok(Self {
            file,
            kind,
            buffer: vec![0; encoding.chunk_bytes()],
            filled: 0,
            buffered: Vec::new(),
            compressed: Vec::new(),
            compressor,
            index: Index {
                encoding,
                ram_pages: ram_bytes / PAGE_BYTES as u64,
                runs: Vec::new(),
                chunks: Vec::new(),
                stored: Vec::new(),
            },
        })
    }

    fn add(&mut self, run: Run, source: &dyn PageSource) -> io::Result<()> {
        let mut first = run.first;
        while first < run.end() {
            let room = ((self.buffer.len() - self.filled) / PAGE_BYTES) as u64;
            let count = room.min(run.end() - first);
            // `count` is at most the pages of one chunk, so the product fits.
            let size = count as usize * PAGE_BYTES;
            source.read(first, &mut self.buffer[self.filled..self.filled + size])?;
            self.keep(first, count);
            first += count;
            if self.filled == self.buffer.len() {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Takes over `count` pages that lie behind the filled part, closing the gaps that dropped zero pages leave.
    fn keep(&mut self, first: u64, count: u64) {
        let start = self.filled;
        for nth in 0..count {
            let from = start + nth as usize * PAGE_BYTES;
            if self.kind == LayerKind::Full && is_zero(&self.buffer[from..from + PAGE_BYTES]) {
                continue;
            }
            if from != self.filled {
                self.buffer
                    .copy_within(from..from + PAGE_BYTES, self.filled);
            }
            self.filled += PAGE_BYTES;
            append_page(&mut self.buffered, first + nth);
            append_page(&mut self.index.runs, first + nth);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let chunk = &self.buffer[..self.filled];
        if let Some(compressor) = &mut self.compressor {
            self.compressed.resize(compress_bound(chunk.len()), 0);
            let length = compressor.compress_to_buffer(chunk, &mut self.compressed[..])?;
            let stored = &self.compressed[..length];
            self.file.write_all(stored)?;
            self.index.chunks.push(sum(stored));
            self.index
                .stored
                .push(u32::try_from(length).map_err(io::Error::other)?);
        } else {
            self.index.chunks.push(sum(chunk));
            if self.index.encoding == Encoding::Flat {
                let mut rest = chunk;
                for run in &self.buffered {
                    // At most the pages of one chunk, so the product fits.
                    let (piece, after) = rest.split_at(run.count as usize * PAGE_BYTES);
                    self.file
                        .write_all_at(piece, run.first * PAGE_BYTES as u64)?;
                    rest = after;
                }
            } else {
                self.file.write_all(chunk)?;
            }
        }
        self.buffered.clear();
        self.filled = 0;
        Ok(())
    }

    fn finish(mut self) -> io::Result<Index> {
        if self.filled > 0 {
            self.flush()?;
        }
        Ok(self.index)
    }
}

/// Reads and checks the index of `layer` against the digest in the manifest.
pub(crate) fn read_index(
    dir: &Path,
    layer: &LayerId,
    index_blake3: &str,
    ram_bytes: u64,
) -> Result<Index, ImageError> {
    let name = names::index(layer);
    let path = dir.join(&name);
    let bytes = match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ImageError::corrupt(name, "file is missing"));
        }
        read => read.map_err(ImageError::io("read", &path))?,
    };
    if blake3::hash(&bytes).to_hex().as_str() != index_blake3 {
        return Err(ImageError::corrupt(
            name,
            "digest differs from the manifest",
        ));
    }
    let index = Index::decode(&bytes).map_err(|what| ImageError::corrupt(name.clone(), what))?;
    if index.ram_pages.checked_mul(PAGE_BYTES as u64) != Some(ram_bytes) {
        return Err(ImageError::corrupt(name, "size of guest RAM"));
    }
    Ok(index)
}

/// Reads all pages of a layer, every chunk checked, and gives each piece to `place(first page, bytes)`.
pub(crate) fn read_pages(
    layer: &mut LayerReader,
    mut place: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<(), ImageError> {
    let mut buffer = vec![0; layer.encoding().chunk_bytes()];
    for chunk in 0..layer.chunk_count() {
        let size = layer.chunk_len(chunk);
        layer.read_chunk(chunk, &mut buffer[..size])?;
        let mut rest = &buffer[..size];
        for run in layer.chunk_runs(chunk) {
            // At most the pages of one chunk, so the product fits.
            let (piece, after) = rest.split_at(run.count as usize * PAGE_BYTES);
            place(run.first, piece).map_err(ImageError::io("place pages of", layer.path()))?;
            rest = after;
        }
    }
    Ok(())
}

/// Opens a file that must have exactly `bytes` bytes.
pub(crate) fn open_exact(path: &Path, name: &str, bytes: u64) -> Result<File, ImageError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ImageError::corrupt(name, "file is missing"));
        }
        opened => opened.map_err(ImageError::io("open", path))?,
    };
    let length = file
        .metadata()
        .map_err(ImageError::io("examine", path))?
        .len();
    if length != bytes {
        return Err(ImageError::corrupt(
            name,
            format!("length is {length}, not {bytes}"),
        ));
    }
    Ok(file)
}
