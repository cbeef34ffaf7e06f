//! Archives: finding the image in what came in.
//!
//! `spool` lays an archive out on disk, since its parts come in any order; `documents` reads the JSON
//! of both kinds of archive; `find` decides which image is meant.

mod documents;
mod find;
mod spool;

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::{Digest, ImportError, Limit, Limits};

pub(crate) use find::{FoundImage, find_image};
pub(crate) use spool::spool;

/// The parts of an archive by their names.
pub(crate) trait Parts {
    /// Where a part is on disk. None if there is no part of that name.
    fn path(&self, name: &str) -> Result<Option<PathBuf>, ImportError>;
}

/// An OCI layout in a directory of the host.
pub(crate) struct LayoutDirectory {
    path: PathBuf,
    dir: File,
}

impl LayoutDirectory {
    pub(crate) fn open(path: &Path) -> Result<Self, ImportError> {
        let dir = File::open(path).map_err(ImportError::io("open", path))?;
        Ok(Self {
            path: path.into(),
            dir,
        })
    }
}

impl Parts for LayoutDirectory {
    /// Links are not followed: the directory may belong to somebody who may read less than we.
    fn path(&self, name: &str) -> Result<Option<PathBuf>, ImportError> {
        let path = self.path.join(name);
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        match rustix::fs::openat2(self.dir.as_fd(), name, flags, Mode::empty(), resolve) {
            Ok(_) => Ok(Some(path)),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(errno) => Err(ImportError::io("open", path)(errno.into())),
        }
    }
}

/// Name of the part with a certain digest.
fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Reads a document whole.
fn read_document(
    parts: &dyn Parts,
    name: &str,
    limits: &Limits,
) -> Result<Option<Vec<u8>>, ImportError> {
    let Some(path) = parts.path(name)? else {
        return Ok(None);
    };
    let file = File::open(&path).map_err(ImportError::io("open", &path))?;
    let mut bytes = Vec::new();
    file.take(limits.manifest_bytes + 1)
        .read_to_end(&mut bytes)
        .map_err(ImportError::io("read", &path))?;
    if bytes.len() as u64 > limits.manifest_bytes {
        return Err(limits.exceeded(Limit::ManifestBytes, name));
    }
    Ok(Some(bytes))
}

/// Reads a document that another one refers to by its digest.
fn read_blob(parts: &dyn Parts, digest: &Digest, limits: &Limits) -> Result<Vec<u8>, ImportError> {
    let name = blob_name(digest);
    let bytes = read_document(parts, &name, limits)?
        .ok_or_else(|| ImportError::Missing { name: name.clone() })?;
    crate::layer::check_digest(&name, *digest, Digest::of(&bytes))?;
    Ok(bytes)
}
