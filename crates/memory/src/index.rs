//! The index of a RAM layer: which pages it holds, and a checksum for each chunk of its packed pages.
//!
//! Layout, little-endian: magic, page size (u32), chunk size (u32), pages of RAM (u64), pages held (u64),
//! number of runs (u32), number of chunks (u32), runs as (first u32, count u32), chunk checksums (16 bytes each),
//! BLAKE3 of all before (16 bytes).

use crate::runs::{PAGE_BYTES, Run, page_count};

/// Packed pages that one checksum covers.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;

const MAGIC: &[u8; 8] = b"copram01";
const HEADER_BYTES: usize = 40;
const RUN_BYTES: usize = 8;
const SUM_BYTES: usize = 16;

/// A BLAKE3 checksum cut to 128 bits: enough against damage, half the size.
pub(crate) type Sum = [u8; SUM_BYTES];

/// Checksum of a chunk or of an index.
pub(crate) fn sum(bytes: &[u8]) -> Sum {
    let mut short = [0; SUM_BYTES];
    short.copy_from_slice(&blake3::hash(bytes).as_bytes()[..SUM_BYTES]);
    short
}

/// Decoded index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) ram_pages: u64,
    pub(crate) runs: Vec<Run>,
    pub(crate) chunks: Vec<Sum>,
}

impl Index {
    /// Bytes of the packed pages.
    pub(crate) fn pages_bytes(&self) -> u64 {
        page_count(&self.runs) * PAGE_BYTES as u64
    }

    /// The index as bytes. Page numbers must fit 32 bits (16 TiB of RAM), which the layer writer checks.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, std::num::TryFromIntError> {
        let size = HEADER_BYTES + self.runs.len() * RUN_BYTES + (self.chunks.len() + 1) * SUM_BYTES;
        let mut bytes = Vec::with_capacity(size);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&u32::try_from(PAGE_BYTES)?.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(CHUNK_BYTES)?.to_le_bytes());
        bytes.extend_from_slice(&self.ram_pages.to_le_bytes());
        bytes.extend_from_slice(&page_count(&self.runs).to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(self.runs.len())?.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(self.chunks.len())?.to_le_bytes());
        for run in &self.runs {
            bytes.extend_from_slice(&u32::try_from(run.first)?.to_le_bytes());
            bytes.extend_from_slice(&u32::try_from(run.count)?.to_le_bytes());
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
        if body < HEADER_BYTES {
            return Err("length");
        }
        let (body, own) = bytes.split_at(body);
        if sum(body) != *own {
            return Err("checksum");
        }
        let mut reader = Reader { rest: body };
        if reader.take::<8>()? != *MAGIC {
            return Err("magic");
        }
        if reader.u32()? as usize != PAGE_BYTES {
            return Err("page size");
        }
        if reader.u32()? as usize != CHUNK_BYTES {
            return Err("chunk size");
        }
        let ram_pages = reader.u64()?;
        let held = reader.u64()?;
        let run_count = reader.u32()? as usize;
        let chunk_count = reader.u32()? as usize;
        if body.len() != HEADER_BYTES + run_count * RUN_BYTES + chunk_count * SUM_BYTES {
            return Err("length");
        }
        let mut runs = Vec::with_capacity(run_count);
        for _ in 0..run_count {
            runs.push(Run {
                first: u64::from(reader.u32()?),
                count: u64::from(reader.u32()?),
            });
        }
        let mut chunks = Vec::with_capacity(chunk_count);
        for _ in 0..chunk_count {
            chunks.push(reader.take()?);
        }
        let index = Self {
            ram_pages,
            runs,
            chunks,
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
        if self.pages_bytes().div_ceil(CHUNK_BYTES as u64) != self.chunks.len() as u64 {
            return Err("chunk count");
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

    fn sample() -> Index {
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
        Index {
            ram_pages: 512,
            runs,
            chunks: vec![sum(b"one"), sum(b"two")],
        }
    }

    #[test]
    fn round_trip_and_every_damaged_byte() {
        let bytes = sample().encode().unwrap();
        assert_eq!(Index::decode(&bytes), Ok(sample()));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(
                Index::decode(&damaged).is_err(),
                "byte {at} changed unnoticed"
            );
            assert!(
                Index::decode(&bytes[..at]).is_err(),
                "cut at {at} unnoticed"
            );
        }
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
                ram_pages: 512,
                runs,
                chunks,
            }
            .encode()
            .unwrap();
            assert_eq!(Index::decode(&bytes), Err("runs"));
        }
    }
}
