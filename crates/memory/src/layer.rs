//! RAM layers: writing pages packed with their index, reading them back with every chunk checked.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::digest::is_zero;
use crate::error::ImageError;
use crate::index::{CHUNK_BYTES, Index, sum};
use crate::runs::{PAGE_BYTES, Run, append_page, page_count};
use crate::{LayerId, names};

const CHUNK_PAGES: u64 = (CHUNK_BYTES / PAGE_BYTES) as u64;

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
    /// Bytes of the packed pages and the index.
    pub bytes: u64,
}

/// A layer's files, written but not yet durable.
pub(crate) struct WrittenLayer {
    pub(crate) index_blake3: String,
    pub(crate) stats: LayerStats,
}

/// Writes the two files of `layer` into `dir`.
pub(crate) fn write(
    dir: &Path,
    layer: &LayerId,
    kind: LayerKind,
    ram_bytes: u64,
    source: &dyn PageSource,
) -> Result<WrittenLayer, ImageError> {
    let path = dir.join(names::pages(layer));
    let file = create(&path)?;
    let mut packer = Packer {
        file,
        kind,
        buffer: vec![0; CHUNK_BYTES],
        filled: 0,
        runs: Vec::new(),
        chunks: Vec::new(),
    };
    for run in source.runs() {
        packer
            .add(*run, source)
            .map_err(ImageError::io("write", &path))?;
    }
    let (runs, chunks) = packer.finish().map_err(ImageError::io("write", &path))?;
    let index = Index {
        ram_pages: ram_bytes / PAGE_BYTES as u64,
        runs,
        chunks,
    };
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
            bytes: index.pages_bytes() + bytes.len() as u64,
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
    runs: Vec<Run>,
    chunks: Vec<crate::index::Sum>,
}

impl Packer {
    fn add(&mut self, run: Run, source: &dyn PageSource) -> io::Result<()> {
        let mut first = run.first;
        while first < run.end() {
            let room = ((CHUNK_BYTES - self.filled) / PAGE_BYTES) as u64;
            let count = room.min(run.end() - first);
            // `count` is at most the pages of one chunk, so the product fits.
            let size = count as usize * PAGE_BYTES;
            source.read(first, &mut self.buffer[self.filled..self.filled + size])?;
            self.keep(first, count);
            first += count;
            if self.filled == CHUNK_BYTES {
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
            append_page(&mut self.runs, first + nth);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let chunk = &self.buffer[..self.filled];
        self.chunks.push(sum(chunk));
        self.file.write_all(chunk)?;
        self.filled = 0;
        Ok(())
    }

    fn finish(mut self) -> io::Result<(Vec<Run>, Vec<crate::index::Sum>)> {
        if self.filled > 0 {
            self.flush()?;
        }
        Ok((self.runs, self.chunks))
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

/// Reads all packed pages of `layer`, checks every chunk and gives each piece to `place(first page, bytes)`.
pub(crate) fn read_pages(
    dir: &Path,
    layer: &LayerId,
    index: &Index,
    mut place: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<(), ImageError> {
    let name = names::pages(layer);
    let path = dir.join(&name);
    let mut file = open_exact(&path, &name, index.pages_bytes())?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut left = index.pages_bytes();
    let mut targets = Targets {
        runs: &index.runs,
        used: 0,
    };
    for (nth, wanted) in index.chunks.iter().enumerate() {
        let size = usize::try_from(left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        let chunk = &mut buffer[..size];
        file.read_exact(chunk)
            .map_err(ImageError::io("read", &path))?;
        if sum(chunk) != *wanted {
            return Err(ImageError::corrupt(
                name,
                format!("checksum of chunk {nth}"),
            ));
        }
        left -= size as u64;
        let mut rest = &*chunk;
        while !rest.is_empty() {
            let Some(target) = targets.next((rest.len() / PAGE_BYTES) as u64) else {
                return Err(ImageError::corrupt(name, "more pages than the index names"));
            };
            // At most the pages of one chunk, so the product fits.
            let (piece, after) = rest.split_at(target.count as usize * PAGE_BYTES);
            place(target.first, piece).map_err(ImageError::io("place pages of", &path))?;
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

/// Walks the runs in pieces.
struct Targets<'a> {
    runs: &'a [Run],
    used: u64,
}

impl Targets<'_> {
    fn next(&mut self, at_most: u64) -> Option<Run> {
        let run = self.runs.first()?;
        let count = (run.count - self.used).min(at_most).min(CHUNK_PAGES);
        let piece = Run {
            first: run.first + self.used,
            count,
        };
        self.used += count;
        if self.used == run.count {
            self.runs = &self.runs[1..];
            self.used = 0;
        }
        Some(piece)
    }
}
