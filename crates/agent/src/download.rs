//! Reading a file or a tree out of the guest.
//!
//! The walk holds one open directory for each level it is in, never a list of a directory's
//! entries, so that a directory with a million files costs no more memory than one with three.

use std::fs::{self, File, OpenOptions, ReadDir};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use protocol::{EntryHeader, EntryKind, Failure, FailureKind, MAX_CHUNK, PathKind};

use crate::{paths, stat};

/// Levels a walk goes down. Each holds a descriptor.
const MAX_DEPTH: usize = 200;

/// A download that is under way.
#[derive(Debug)]
pub(crate) struct Download {
    follow: bool,
    levels: Vec<Level>,
    /// The entry that comes next, found before the one before it ends because that one must say
    /// whether it is the last.
    upcoming: Option<Entry>,
    content: Option<Content>,
    in_entry: bool,
}

/// A piece of a download.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Header(EntryHeader),
    Data(Vec<u8>),
    End { last: bool },
}

#[derive(Debug)]
struct Level {
    entries: ReadDir,
    /// Relative path of the directory in the download.
    name: PathBuf,
    /// Device and inode, to notice links that lead back.
    identity: (u64, u64),
}

#[derive(Debug)]
struct Entry {
    path: PathBuf,
    header: EntryHeader,
}

#[derive(Debug)]
struct Content {
    file: File,
    path: PathBuf,
    left: u64,
}

impl Download {
    pub(crate) fn open(path: &str, follow: bool) -> Result<Self, Failure> {
        let path = paths::absolute(path)?;
        let name = paths::base_name(&path);
        let Some(entry) = describe(&path, &name, follow)? else {
            return Err(
                Failure::new(FailureKind::Invalid, "is a device, pipe or socket")
                    .at(path.to_string_lossy()),
            );
        };
        Ok(Download {
            follow,
            levels: Vec::new(),
            upcoming: Some(entry),
            content: None,
            in_entry: false,
        })
    }

    /// The next piece, with at most [`MAX_CHUNK`] bytes of data. Must not be called after the last
    /// end.
    pub(crate) fn next(&mut self) -> Result<Piece, Failure> {
        if let Some(content) = &mut self.content {
            if content.left > 0 {
                return content.read().map(Piece::Data);
            }
            self.content = None;
        }
        if self.in_entry {
            self.in_entry = false;
            self.upcoming = self.find_next()?;
            return Ok(Piece::End {
                last: self.upcoming.is_none(),
            });
        }
        let Some(entry) = self.upcoming.take() else {
            return Err(Failure::new(FailureKind::Invalid, "download is over"));
        };
        self.enter(&entry)?;
        self.in_entry = true;
        Ok(Piece::Header(entry.header))
    }

    fn enter(&mut self, entry: &Entry) -> Result<(), Failure> {
        match entry.header.kind {
            EntryKind::File { size } => {
                self.content = Some(Content::open(entry.path.clone(), size)?);
            }
            EntryKind::Directory => self.descend(entry)?,
            EntryKind::Symlink { .. } => {}
        }
        Ok(())
    }

    fn descend(&mut self, entry: &Entry) -> Result<(), Failure> {
        let failed = |error: io::Error| paths::failure(&error, &entry.path);
        let metadata = fs::metadata(&entry.path).map_err(failed)?;
        let identity = (metadata.dev(), metadata.ino());
        if self.levels.iter().any(|level| level.identity == identity) {
            let failure = Failure::new(
                FailureKind::Invalid,
                "symbolic link leads back to a directory above it",
            );
            return Err(failure.at(entry.path.to_string_lossy()));
        }
        if self.levels.len() >= MAX_DEPTH {
            return Err(
                Failure::new(FailureKind::Limit, "directories are nested too deeply")
                    .at(entry.path.to_string_lossy()),
            );
        }
        let entries = fs::read_dir(&entry.path).map_err(failed)?;
        self.levels.push(Level {
            entries,
            name: PathBuf::from(&entry.header.path),
            identity,
        });
        Ok(())
    }

    fn find_next(&mut self) -> Result<Option<Entry>, Failure> {
        while let Some(level) = self.levels.last_mut() {
            let Some(next) = level.entries.next() else {
                self.levels.pop();
                continue;
            };
            let next = next.map_err(|error| paths::failure(&error, &level.name))?;
            let name = level.name.join(next.file_name());
            match describe(&next.path(), &name, self.follow) {
                Ok(Some(entry)) => return Ok(Some(entry)),
                Ok(None) => {}
                // Deleted since the directory was read.
                Err(failure) if failure.kind == FailureKind::NotFound => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(None)
    }
}

/// `None` for what downloads leave out. A link that leads nowhere is sent as a link even when links
/// are followed.
fn describe(path: &Path, name: &Path, follow: bool) -> Result<Option<Entry>, Failure> {
    let facts = match stat::facts(path, follow) {
        Err(error) if follow && error.kind() == io::ErrorKind::NotFound => stat::facts(path, false),
        other => other,
    };
    let facts = facts.map_err(|error| paths::failure(&error, path))?;
    let kind = match facts.kind {
        PathKind::File => EntryKind::File { size: facts.size },
        PathKind::Directory => EntryKind::Directory,
        PathKind::Symlink => EntryKind::Symlink {
            target: facts.link_target.unwrap_or_default(),
        },
        PathKind::Other => return Ok(None),
    };
    let Some(name) = name.to_str() else {
        let failure = Failure::new(FailureKind::Invalid, "file name is not UTF-8");
        return Err(failure.at(path.to_string_lossy()));
    };
    let header = EntryHeader {
        path: name.to_owned(),
        kind,
        mode: facts.mode,
        owner: facts.owner,
        mtime: facts.mtime,
    };
    Ok(Some(Entry {
        path: path.to_owned(),
        header,
    }))
}

impl Content {
    /// A file that was swapped for a pipe since it was described must not block the agent.
    fn open(path: PathBuf, size: u64) -> Result<Self, Failure> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path);
        let file = file.map_err(|error| paths::failure(&error, &path))?;
        Ok(Content {
            file,
            path,
            left: size,
        })
    }

    /// Reads at most what the header promised: a file that grows is cut, one that shrinks fails the
    /// download.
    fn read(&mut self) -> Result<Vec<u8>, Failure> {
        let mut bytes = vec![0; self.left.min(MAX_CHUNK as u64) as usize];
        let len = self
            .file
            .read(&mut bytes)
            .map_err(|error| paths::failure(&error, &self.path))?;
        if len == 0 {
            let failure = Failure::new(FailureKind::Io, "file became shorter while it was read");
            return Err(failure.at(self.path.to_string_lossy()));
        }
        bytes.truncate(len);
        self.left -= len as u64;
        Ok(bytes)
    }
}
