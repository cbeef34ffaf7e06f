//! Writing one entry into the guest.
//!
//! A file grows under a temporary name beside its place and is renamed when it is complete, so
//! nobody ever sees half of it and an upload that breaks off leaves what was there before.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use protocol::{Failure, FailureKind, Owner, PathFacts, PathKind, UploadKind, UploadSpec};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, utimensat};

use crate::{paths, stat};

/// Mode of directories made on the way.
const PARENT_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;

/// An upload that is under way.
#[derive(Debug)]
pub(crate) struct Upload {
    spec: UploadSpec,
    target: PathBuf,
    replaced: Option<PathFacts>,
    content: Option<(File, Temporary)>,
    written: u64,
}

impl Upload {
    /// Checks the target, makes its parents and opens the temporary file.
    pub(crate) fn open(spec: UploadSpec) -> Result<Self, Failure> {
        let path = paths::absolute(&spec.path)?;
        let (target, replaced) = place(path, &spec.kind)?;
        make_parents(&target)?;
        let content = match spec.kind {
            UploadKind::File => Some(Temporary::create(&target)?),
            UploadKind::Directory | UploadKind::Symlink { .. } => None,
        };
        Ok(Upload {
            spec,
            target,
            replaced,
            content,
            written: 0,
        })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Some((file, _)) = &mut self.content else {
            return Err(
                Failure::new(FailureKind::Invalid, "only files have content")
                    .at(self.spec.path.clone()),
            );
        };
        file.write_all(bytes)
            .map_err(|error| paths::failure(&error, &self.target))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Puts the entry into its place.
    pub(crate) fn finish(mut self) -> Result<u64, Failure> {
        let result = match (self.content.take(), &self.spec.kind) {
            (Some((file, temporary)), _) => {
                drop(file);
                self.attributes(&temporary.path, FILE_MODE)
                    .and_then(|()| temporary.rename(&self.target))
            }
            (None, UploadKind::Symlink { target }) => self.link(target),
            (None, UploadKind::File | UploadKind::Directory) => self.directory(),
        };
        result.map_err(|error| paths::failure(&error, &self.target))?;
        Ok(self.written)
    }

    fn directory(&self) -> io::Result<()> {
        match fs::create_dir(&self.target) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        self.attributes(&self.target, DIRECTORY_MODE)
    }

    fn link(&self, to: &str) -> io::Result<()> {
        let temporary = Temporary {
            path: temporary_name(&self.target),
        };
        symlink(to, &temporary.path)?;
        let owner = self.owner();
        own(&temporary.path, owner)?;
        temporary.rename(&self.target)
    }

    /// Owner before mode: changing the owner takes the set-id bits away.
    fn attributes(&self, path: &Path, default_mode: u32) -> io::Result<()> {
        own(path, self.owner())?;
        let kept = self
            .replaced
            .as_ref()
            .map_or(default_mode, |facts| facts.mode);
        fs::set_permissions(
            path,
            Permissions::from_mode(self.spec.mode.unwrap_or(kept) & 0o7777),
        )?;
        match self.spec.mtime {
            Some(mtime) => set_mtime(path, mtime),
            None => Ok(()),
        }
    }

    fn owner(&self) -> Option<Owner> {
        self.spec
            .owner
            .or(self.replaced.as_ref().map(|facts| facts.owner))
    }
}

/// Where the entry goes, and what is there now. An upload over a link to a file replaces the file,
/// as writing to the path would; a link that leads nowhere is replaced itself.
fn place(path: PathBuf, kind: &UploadKind) -> Result<(PathBuf, Option<PathFacts>), Failure> {
    let refused = |kind, message: &str| Err(Failure::new(kind, message).at(path.to_string_lossy()));
    if path.file_name().is_none() && !matches!(kind, UploadKind::Directory) {
        return refused(FailureKind::IsDirectory, "is a directory");
    }
    let resolved = match kind {
        UploadKind::Symlink { .. } => path.clone(),
        UploadKind::File | UploadKind::Directory => {
            fs::canonicalize(&path).unwrap_or_else(|_| path.clone())
        }
    };
    let facts = match stat::facts(&resolved, false) {
        Ok(facts) => facts,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((resolved, None)),
        Err(error) => return Err(paths::failure(&error, &path)),
    };
    match (kind, facts.kind) {
        (UploadKind::Directory, PathKind::Directory)
        | (UploadKind::File, PathKind::File)
        | (UploadKind::Symlink { .. }, PathKind::File) => Ok((resolved, Some(facts))),
        // The old link's owner and mode say nothing about what replaces it.
        (UploadKind::File | UploadKind::Symlink { .. }, PathKind::Symlink) => Ok((resolved, None)),
        (UploadKind::File | UploadKind::Symlink { .. }, PathKind::Directory) => {
            refused(FailureKind::IsDirectory, "is a directory")
        }
        (UploadKind::Directory, PathKind::File | PathKind::Symlink | PathKind::Other) => {
            refused(FailureKind::NotDirectory, "is not a directory")
        }
        (UploadKind::File | UploadKind::Symlink { .. }, PathKind::Other) => {
            refused(FailureKind::Invalid, "is a device, pipe or socket")
        }
    }
}

fn make_parents(target: &Path) -> Result<(), Failure> {
    let Some(parent) = target.parent() else {
        return Ok(());
    };
    let mut missing = Vec::new();
    for directory in parent.ancestors() {
        match fs::metadata(directory) {
            Ok(metadata) if metadata.is_dir() => break,
            Ok(_) => {
                return Err(
                    Failure::new(FailureKind::NotDirectory, "is not a directory")
                        .at(directory.to_string_lossy()),
                );
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(directory),
            Err(error) => return Err(paths::failure(&error, directory)),
        }
    }
    for directory in missing.into_iter().rev() {
        fs::create_dir(directory)
            .and_then(|()| fs::set_permissions(directory, Permissions::from_mode(PARENT_MODE)))
            .map_err(|error| paths::failure(&error, directory))?;
    }
    Ok(())
}

/// A name that goes away with this value.
#[derive(Debug)]
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    fn create(target: &Path) -> Result<(File, Temporary), Failure> {
        let path = temporary_name(target);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| paths::failure(&error, target))?;
        Ok((file, Temporary { path }))
    }

    fn rename(self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)
        // The drop that follows finds nothing under the old name.
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Unique among the agents a directory can have: forks have their own file systems, tests their own
/// process.
fn temporary_name(target: &Path) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    target.with_file_name(format!(".coppice-upload-{}-{number}", std::process::id()))
}

fn own(path: &Path, owner: Option<Owner>) -> io::Result<()> {
    match owner {
        Some(owner) => lchown(path, Some(owner.uid), Some(owner.gid)),
        None => Ok(()),
    }
}

fn set_mtime(path: &Path, seconds: i64) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT as _,
        },
        last_modification: Timespec {
            tv_sec: seconds,
            tv_nsec: 0,
        },
    };
    Ok(utimensat(CWD, path, &times, AtFlags::empty())?)
}
