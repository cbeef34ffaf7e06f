//! Laying an archive out on disk. Its parts come in any order, and the ones that say what the others
//! are often come last.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use tar::EntryType;

use super::Parts;
use crate::store::Progress;
use crate::{ImportError, Limit, Limits};

/// Links among the parts: old versions of `docker save` write a layer shared by two images once.
const MOST_LINKS: usize = 8;

/// Entries of an archive, which has a handful for each layer. Layers have their own limit.
const MOST_PARTS: usize = 100_000;

/// An archive laid out in a directory, under names of our own.
pub(crate) struct Spool {
    parts: HashMap<String, Part>,
}

enum Part {
    File(PathBuf),
    /// Name of another part.
    Link(String),
}

impl Parts for Spool {
    fn path(&self, name: &str) -> Result<Option<PathBuf>, ImportError> {
        let mut name = name;
        for _ in 0..MOST_LINKS {
            match self.parts.get(name) {
                Some(Part::File(path)) => return Ok(Some(path.clone())),
                Some(Part::Link(target)) => name = target,
                None => return Ok(None),
            }
        }
        Err(ImportError::malformed(name, "too many links"))
    }
}

/// Copies every part of an archive into `dir`. The archive may be compressed as a whole.
pub(crate) fn spool(
    source: impl Read,
    dir: &Path,
    limits: &Limits,
    progress: &mut dyn FnMut(Progress),
) -> Result<Spool, ImportError> {
    let mut archive = tar::Archive::new(Metered {
        inner: decompressed(source).map_err(ImportError::Read)?,
        left: limits.archive_bytes,
        read: 0,
    });
    let mut parts = HashMap::new();
    let mut seen = 0;
    // What is left of the allowance is asked for by position: the reader is lent to the archive.
    let too_large = |error: io::Error| match error.kind() {
        io::ErrorKind::FileTooLarge => limits.exceeded(Limit::ArchiveBytes, "the archive"),
        _ => ImportError::Read(error),
    };
    for entry in archive.entries().map_err(too_large)?.raw(true) {
        let mut entry = entry.map_err(too_large)?;
        seen += 1;
        if seen > MOST_PARTS {
            return Err(ImportError::malformed(
                "the archive",
                "more parts than any image has",
            ));
        }
        let name = part_name(&entry.header().path_bytes());
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {
                let path = dir.join(seen.to_string());
                copy(&mut entry, &path, limits)?;
                progress(Progress::Read {
                    bytes: entry.raw_file_position() + entry.size(),
                });
                parts.insert(name, Part::File(path));
            }
            EntryType::Symlink | EntryType::Link => {
                let target = entry.header().link_name_bytes().unwrap_or_default();
                let from = match entry.header().entry_type() {
                    EntryType::Symlink => name.rsplit_once('/').map_or("", |(dir, _)| dir),
                    _ => "",
                };
                let target = resolve(from, &part_name(&target));
                parts.insert(name, Part::Link(target));
            }
            // Directories, and headers that no writer of such archives needs: names are short.
            _ => {}
        }
    }
    Ok(Spool { parts })
}

/// Writes a part to disk, and tells failures of reading from those of writing.
fn copy(body: &mut impl Read, path: &Path, limits: &Limits) -> Result<(), ImportError> {
    let mut file = File::create_new(path).map_err(ImportError::io("create", path))?;
    let mut buffer = vec![0; 1 << 17];
    loop {
        let count = match body.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                return Err(limits.exceeded(Limit::ArchiveBytes, "the archive"));
            }
            Err(error) => return Err(ImportError::Read(error)),
        };
        io::Write::write_all(&mut file, &buffer[..count])
            .map_err(ImportError::io("write", path))?;
    }
}

/// The name without a leading `./`. It is only ever compared, never given to the system.
fn part_name(bytes: &[u8]) -> String {
    let name = String::from_utf8_lossy(bytes);
    name.strip_prefix("./").unwrap_or(&name).to_owned()
}

/// The name a link in the directory `from` leads to.
fn resolve(from: &str, target: &str) -> String {
    let mut components: Vec<&str> = from.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(components.pop()),
            name => components.push(name),
        }
    }
    components.join("/")
}

fn decompressed<'a>(source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut buffered = BufReader::with_capacity(1 << 17, source);
    let start = buffered.fill_buf()?;
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(buffered)?),
        _ => Box::new(buffered),
    })
}

/// Stops reading, with an error of its own kind, once an allowance is used up.
struct Metered<R> {
    inner: R,
    left: u64,
    read: u64,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.read += count as u64;
        if self.read > self.left {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_other_parts_and_never_out() {
        for (from, target, resolved) in [
            ("abc", "../def/layer.tar", "def/layer.tar"),
            ("", "def/layer.tar", "def/layer.tar"),
            ("a/b", "../../../../etc/passwd", "etc/passwd"),
        ] {
            assert_eq!(resolve(from, target), resolved);
        }
    }
}
