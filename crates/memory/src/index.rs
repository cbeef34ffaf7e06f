//! The index of a RAM layer: which pages it holds, how they are stored, and a checksum for each chunk of them.
//!
//! Layout, little-endian: magic, for version 2 the encoding (u32), page size (u32), chunk size (u32), pages of RAM
//! (u64), pages held (u64), number of runs (u32), number of chunks (u32), runs as (first u32, count u32), for
//! compressed layers the stored length of each chunk (u32), chunk checksums (16 bytes each), BLAKE3 of all before
//! (16 bytes). Packed layers are written as version 1, which says nothing of encodings.

use crate::runs::{PAGE_BYTES, Run, page_count};

const MAGIC_1: &[u8; 8] = b"copram01";
const MAGIC_2: &[u8; 8] = b"copram02";
const RUN_BYTES: usize = 8;
const SUM_BYTES: usize = 16;

/// How the pages of a layer are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// One after the other, without gaps.
    Packed,
    /// Each at its own offset in a sparse file as long as guest RAM, which a VMM can map as it is.
    /// No checksum covers the holes, so who maps it must be content with checks of the pages it holds.
    Flat,
    /// As packed, in chunks that are compressed each by itself with zstd.
    Zstd,
}

impl Encoding {
    /// Bytes of pages that one checksum covers; the last chunk of a layer may have fewer.
    ///
    /// Compressed chunks are small, because one page costs the whole chunk: 64 KiB is what a pager copies at once.
    #[must_use]
    pub fn chunk_bytes(self) -> usize {
        match self {
            Self::Packed | Self::Flat => 1 << 20,
            Self::Zstd => 64 << 10,
        }
    }

    fn code(self) -> u32 {
        match self {
            Self::Packed => 0,
            Self::Flat => 1,
            Self::Zstd => 2,
        }
    }

    fn from_code(code: u32) -> Option<Self> {
        // Packed layers have version 1, so that every layer has one way to be written.
        [Self::Flat, Self::Zstd]
            .into_iter()
            .find(|encoding| encoding.code() == code)
    }
}

/// A BLAKE3 checksum cut to 128 bits: enough against damage, half the size.
pub(crate) type Sum = [u8; SUM_BYTES];

/// Checksum of a chunk as it is stored, or of an index.
pub(crate) fn sum(bytes: &[u8]) -> Sum {
    let mut short = [0; SUM_BYTES];
    short.copy_from_slice(&blake3::hash(bytes).as_bytes()[..SUM_BYTES]);
    short
}

/// Decoded index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) encoding: Encoding,
    pub(crate) ram_pages: u64,
    pub(crate) runs: Vec<Run>,
    pub(crate) chunks: Vec<Sum>,
    /// Stored length of each chunk in bytes; empty unless they are compressed.
    pub(crate) stored: Vec<u32>,
}

impl Index {
    /// Bytes of the pages held, before compression.
    pub(crate) fn pages_bytes(&self) -> u64 {
        page_count(&self.runs) * PAGE_BYTES as u64
    }

    /// Length of the file with the pages.
    pub(crate) fn file_bytes(&self) -> u64 {
        match self.encoding {
            Encoding::Packed => self.pages_bytes(),
            Encoding::Flat => self.ram_pages * PAGE_BYTES as u64,
            Encoding::Zstd => self.stored.iter().copied().map(u64::from).sum(),
        }
    }

    /// Bytes that the pages take on the disk.
    pub(crate) fn stored_bytes(&self) -> u64 {
        match self.encoding {
            Encoding::Packed | Encoding::Zstd => self.file_bytes(),
            // The rest of the file is holes.
            Encoding::Flat => self.pages_bytes(),
        }
    }

    /// The index as bytes. Page numbers must fit 32 bits (16 TiB of RAM), which the layer writer checks.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, std::num::TryFromIntError> {
        let mut bytes = Vec::with_capacity(
            64 + self.runs.len() * RUN_BYTES + (self.chunks.len() + 1) * (SUM_BYTES + 4),
        );
        if self.encoding == Encoding::Packed {
            bytes.extend_from_slice(MAGIC_1);
        } else {
            bytes.extend_from_slice(MAGIC_2);
            bytes.extend_from_slice(&self.encoding.code().to_le_bytes());
        }
        bytes.extend_from_slice(&u32::try_from(PAGE_BYTES)?.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(self.encoding.chunk_bytes())?.to_le_bytes());
        bytes.extend_from_slice(&self.ram_pages.to_le_bytes());
        bytes.extend_from_slice(&page_count(&self.runs).to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(self.runs.len())?.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(self.chunks.len())?.to_le_bytes());
        for run in &self.runs {
            bytes.extend_from_slice(&u32::try_from(run.first)?.to_le_bytes());
            bytes.extend_from_slice(&u32::try_from(run.count)?.to_le_bytes());
        }
        for length in &self.stored {
            bytes.extend_from_slice(&length.to_le_bytes());
        }
        for chunk in &self.chunks {
            bytes.extend_from_slice(chunk);
        }
        let own = sum(&bytes);
        bytes.extend_from_slice(&own);
        Ok(bytes)
    }

    /// Reads an index; the error names the part that is wrong.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let body = bytes.len().checked_sub(SUM_BYTES).ok_or("length")?;
        let (body, own) = bytes.split_at(body);
        if sum(body) != *own {
            return Err("checksum");
        }
        let mut reader = Reader { rest: body };
        let encoding = match &reader.take::<8>()? {
            MAGIC_1 => Encoding::Packed,
            MAGIC_2 => Encoding::from_code(reader.u32()?).ok_or("encoding")?,
            _ => return Err("magic"),
        };
        if reader.u32()? as usize != PAGE_BYTES {
            return Err("page size");
        }
        if reader.u32()? as usize != encoding.chunk_bytes() {
            return Err("chunk size");
        }
        let ram_pages = reader.u64()?;
        let held = reader.u64()?;
        let run_count = reader.u32()? as usize;
        let chunk_count = reader.u32()? as usize;
        let stored_count = match encoding {
            Encoding::Packed | Encoding::Flat => 0,
            Encoding::Zstd => chunk_count,
        };
        // Checked before anything is reserved for what the counts promise.
        if reader.rest.len() != run_count * RUN_BYTES + stored_count * 4 + chunk_count * SUM_BYTES {
            return Err("length");
        }
        let run = |reader: &mut Reader<'_>| {
            Ok::<_, &'static str>(Run {
                first: u64::from(reader.u32()?),
                count: u64::from(reader.u32()?),
            })
        };
        let runs = (0..run_count)
            .map(|_| run(&mut reader))
            .collect::<Result<_, _>>()?;
        let stored = (0..stored_count)
            .map(|_| reader.u32())
            .collect::<Result<_, _>>()?;
        let chunks = (0..chunk_count)
            .map(|_| reader.take())
            .collect::<Result<_, _>>()?;
        let index = Self {
            encoding,
            ram_pages,
            runs,
            chunks,
            stored,
        };
        index.check(held)?;
        Ok(index)
    }

    fn check(&self, held: u64) -> Result<(), &'static str> {
        let mut next = 0;
        for run in &self.runs {
            if run.count == 0 || run.first < next || run.end() > self.ram_pages {
                return Err("runs");
            }
            next = run.end();
        }
        if page_count(&self.runs) != held {
            return Err("page count");
        }
        let chunk_bytes = self.encoding.chunk_bytes() as u64;
        if self.pages_bytes().div_ceil(chunk_bytes) != self.chunks.len() as u64 {
            return Err("chunk count");
        }
        // zstd never needs more than this for what it cannot compress.
        if self
            .stored
            .iter()
            .any(|length| *length == 0 || u64::from(*length) > chunk_bytes + 1024)
        {
            return Err("chunk length");
        }
        Ok(())
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or("length")?;
        self.rest = rest;
        Ok(*head)
    }

    fn u32(&mut self) -> Result<u32, &'static str> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    fn u64(&mut self) -> Result<u64, &'static str> {
        Ok(u64::from_le_bytes(self.take()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(encoding: Encoding) -> Index {
        let runs = vec![
            Run {
                first: 1,
                count: 300,
            },
            Run {
                first: 400,
                count: 2,
            },
        ];
        let count = (302 * PAGE_BYTES).div_ceil(encoding.chunk_bytes());
        let stored = match encoding {
            Encoding::Packed | Encoding::Flat => Vec::new(),
            Encoding::Zstd => vec![77; count],
        };
        Index {
            encoding,
            ram_pages: 512,
            runs,
            chunks: vec![sum(b"one"); count],
            stored,
        }
    }

    #[test]
    fn round_trip_and_every_damaged_byte() {
        for encoding in [Encoding::Packed, Encoding::Flat, Encoding::Zstd] {
            let bytes = sample(encoding).encode().unwrap();
            assert_eq!(Index::decode(&bytes), Ok(sample(encoding)));
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1;
                assert!(
                    Index::decode(&damaged).is_err(),
                    "byte {at} of {encoding:?} changed unnoticed"
                );
                assert!(
                    Index::decode(&bytes[..at]).is_err(),
                    "cut of {encoding:?} at {at} unnoticed"
                );
            }
        }
    }

    /// Layers written before there were encodings must be read for ever, and packed ones by older programs.
    #[test]
    fn packed_layers_keep_the_first_format() {
        let bytes = sample(Encoding::Packed).encode().unwrap();
        assert_eq!(&bytes[..8], b"copram01");
        assert_eq!(bytes.len(), 40 + 2 * 8 + 2 * 16 + 16);
    }

    #[test]
    fn refuses_runs_outside_or_out_of_order() {
        for runs in [
            vec![Run {
                first: 500,
                count: 13,
            }],
            vec![Run { first: 5, count: 2 }, Run { first: 6, count: 1 }],
            vec![Run { first: 5, count: 0 }],
        ] {
            let chunks = vec![sum(b"one"); usize::from(page_count(&runs) > 0)];
            let bytes = Index {
                encoding: Encoding::Packed,
                ram_pages: 512,
                runs,
                chunks,
                stored: Vec::new(),
            }
            .encode()
            .unwrap();
            assert_eq!(Index::decode(&bytes), Err("runs"));
        }
    }
}
