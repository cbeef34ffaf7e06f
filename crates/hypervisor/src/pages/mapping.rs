//! Where a memfd is mapped in a process.

use std::io;

use memory::{PAGE_BYTES, Run};

/// A file by device and inode, as `/proc/<pid>/maps` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
    pub(crate) device: (u32, u32),
    pub(crate) inode: u64,
}

impl FileId {
    /// Identity of an open file.
    pub(crate) fn of(file: impl std::os::fd::AsFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(file)?;
        let device = (
            rustix::fs::major(stat.st_dev),
            rustix::fs::minor(stat.st_dev),
        );
        Ok(Self {
            device,
            inode: stat.st_ino,
        })
    }
}

/// A contiguous piece of guest RAM in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    start: u64,
    end: u64,
    offset: u64,
}

/// Guest RAM in a process: pieces of one file, which the kernel may have split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mapping {
    pieces: Vec<Piece>,
}

impl Mapping {
    /// Finds the mapping of `file` in process `pid`; fails if it does not cover `ram_bytes` exactly.
    pub(crate) fn find(pid: i32, file: FileId, ram_bytes: u64) -> io::Result<Self> {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let mut pieces: Vec<Piece> = maps
            .lines()
            .filter_map(|line| parse_line(line, file))
            .collect();
        pieces.sort_unstable_by_key(|piece| piece.offset);
        let mut covered = 0;
        for piece in &pieces {
            if piece.offset != covered {
                break;
            }
            covered = piece.offset + (piece.end - piece.start);
        }
        if covered != ram_bytes || pieces.is_empty() {
            let text =
                format!("guest RAM of process {pid}: {covered} of {ram_bytes} bytes are mapped");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(Self { pieces })
    }

    /// Address ranges (start, end, first page of RAM).
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.pieces
            .iter()
            .map(|piece| (piece.start, piece.end, piece.offset / PAGE_BYTES as u64))
    }

    /// The part of `run` that lies in one piece from its start on: address and number of pages.
    pub(crate) fn locate(&self, run: Run) -> Option<(u64, u64)> {
        let offset = run.first * PAGE_BYTES as u64;
        let piece = self.pieces.iter().find(|piece| {
            (piece.offset..piece.offset + (piece.end - piece.start)).contains(&offset)
        })?;
        let address = piece.start + (offset - piece.offset);
        Some((
            address,
            run.count.min((piece.end - address) / PAGE_BYTES as u64),
        ))
    }
}

/// `start-end perms offset major:minor inode path`
fn parse_line(line: &str, file: FileId) -> Option<Piece> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let (_, offset) = (fields.next()?, fields.next()?);
    let (major, minor) = fields.next()?.split_once(':')?;
    let inode: u64 = fields.next()?.parse().ok()?;
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let device = (
        u32::from_str_radix(major, 16).ok()?,
        u32::from_str_radix(minor, 16).ok()?,
    );
    if (FileId { device, inode }) != file {
        return None;
    }
    Some(Piece {
        start: hex(start)?,
        end: hex(end)?,
        offset: hex(offset)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileId = FileId {
        device: (0, 1),
        inode: 77,
    };

    #[test]
    fn reads_lines_of_the_file_only() {
        let ours = "7f0000000000-7f0000010000 rw-p 00004000 00:01 77 /memfd:coppice-ram (deleted)";
        assert_eq!(
            parse_line(ours, FILE),
            Some(Piece {
                start: 0x7f00_0000_0000,
                end: 0x7f00_0001_0000,
                offset: 0x4000
            })
        );
        for other in [
            "7f0000000000-7f0000010000 rw-p 00000000 00:01 78 /memfd:x (deleted)",
            "7f0000000000-7f0000010000 rw-p 00000000 08:01 77 /x",
            "7f0000000000-7f0000010000 rw-p 00000000 00:00 0 [heap]",
            "",
        ] {
            assert_eq!(parse_line(other, FILE), None, "{other}");
        }
    }

    #[test]
    fn locates_across_pieces() {
        let mapping = Mapping {
            pieces: vec![
                Piece {
                    start: 0x10000,
                    end: 0x14000,
                    offset: 0,
                },
                Piece {
                    start: 0x50000,
                    end: 0x52000,
                    offset: 0x4000,
                },
            ],
        };
        assert_eq!(
            mapping.locate(Run { first: 1, count: 9 }),
            Some((0x11000, 3))
        );
        assert_eq!(
            mapping.locate(Run { first: 4, count: 1 }),
            Some((0x50000, 1))
        );
        assert_eq!(mapping.locate(Run { first: 6, count: 1 }), None);
    }
}
