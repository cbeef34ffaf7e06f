//! Why an archive did not become an image.

use std::io;
use std::path::PathBuf;

use crate::{Digest, DigestError, Limit};

/// Why an import failed. Nothing is left of a failed import.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The archive could not be read to its end.
    #[error("the archive could not be read")]
    Read(#[source] io::Error),
    /// A file or directory of the store could not be read or written.
    #[error("{action} {}", path.display())]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The refusal of the system.
        source: io::Error,
    },
    /// No space is left on the file system of the store.
    #[error("no space left on the file system of {}", path.display())]
    DiskFull {
        /// A path on that file system.
        path: PathBuf,
    },
    /// Only root can give files the owners that the image says.
    #[error("importing images needs root, to keep the owners of files")]
    NotRoot,
    /// A program is not installed.
    #[error("{program} is missing, install the package {package}")]
    ProgramMissing {
        /// Name of the program.
        program: &'static str,
        /// Debian package that has it.
        package: &'static str,
    },
    /// mkfs.erofs ran and failed.
    #[error("mkfs.erofs failed: {stderr}")]
    MkfsFailed {
        /// What it printed.
        stderr: String,
    },
    /// There is neither `index.json` nor `manifest.json`.
    #[error("neither an OCI layout nor a docker-save archive")]
    NotAnImage,
    /// A JSON document is not what it should be.
    #[error("{what} is malformed: {reason}")]
    Malformed {
        /// The document, by its name in the archive.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something the archive refers to is not in it.
    #[error("{name} is not in the archive")]
    Missing {
        /// Its name in the archive.
        name: String,
    },
    /// The archive uses a digest we do not know.
    #[error("unsupported digest")]
    Digest(#[from] DigestError),
    /// Content does not have the digest it was announced with.
    #[error("{what} has the digest {actual} instead of {expected}")]
    DigestMismatch {
        /// The content, by its name in the archive.
        what: String,
        /// The announced digest.
        expected: Digest,
        /// The digest of what was read.
        actual: Digest,
    },
    /// None of the platforms of the image is ours.
    #[error("no image for linux/amd64, only for {found}")]
    PlatformMissing {
        /// The platforms there are, separated by commas.
        found: String,
    },
    /// The archive holds more than one image, and nobody said which is meant.
    #[error("the archive holds several images: {found}")]
    SeveralImages {
        /// Their names, separated by commas.
        found: String,
    },
    /// The archive is larger in some way than it may be.
    #[error("{entry} exceeds the limit of {value} for the {limit}")]
    LimitExceeded {
        /// What was read when the limit was met.
        entry: String,
        /// The limit met.
        limit: Limit,
        /// Its value.
        value: u64,
    },
    /// A layer is not a tar stream, or ends early.
    #[error("layer {layer} is damaged near {entry}")]
    LayerDamaged {
        /// Number of the layer, the lowest being 0.
        layer: usize,
        /// The last entry that was begun.
        entry: String,
        /// What the reader said.
        source: io::Error,
    },
    /// An entry of a layer is not allowed to be what it is.
    #[error("layer {layer}: {entry} {reason}")]
    Refused {
        /// Number of the layer, the lowest being 0.
        layer: usize,
        /// The entry's name as it stands in the layer.
        entry: String,
        /// Why it is refused.
        reason: Refusal,
    },
}

/// Why an entry of a layer is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The path has a `..` component.
    #[error("leads through a parent directory")]
    ParentComponent,
    /// The path has a zero byte or is empty.
    #[error("is no path")]
    NoPath,
    /// A component is longer than a file name can be.
    #[error("has a component of more than 255 bytes")]
    NameTooLong,
    /// A link on the way leads above the image's root directory.
    #[error("goes through a symbolic link that leads out of the image")]
    OutsideLink,
    /// There are more links on the way than Linux would follow.
    #[error("goes through too many symbolic links")]
    TooManyLinks,
    /// Something on the way is no directory.
    #[error("has a parent that is no directory")]
    ParentNotDirectory,
    /// It would replace the root directory by something else.
    #[error("would replace the root directory")]
    ReplacesRoot,
    /// It is a device node outside of `dev`.
    #[error("is a device node outside of dev")]
    DeviceNode,
    /// The target of a hard link does not exist.
    #[error("is a hard link to something that does not exist")]
    HardLinkTargetMissing,
    /// The target of a hard link is a directory.
    #[error("is a hard link to a directory")]
    HardLinkToDirectory,
    /// It is a sparse file of GNU tar, which no image builder writes.
    #[error("is a sparse file")]
    Sparse,
    /// Its type is none we know.
    #[error("is of unknown type {0:#04x}")]
    UnknownType(u8),
    /// A number in its header cannot be read.
    #[error("has an unreadable {0} in its header")]
    BadNumber(&'static str),
    /// Its extended header cannot be read.
    #[error("has an unreadable extended header")]
    BadExtension,
    /// A whiteout names nothing that could be deleted.
    #[error("is a whiteout of nothing")]
    BadWhiteout,
    /// The file system of the store cannot keep one of its extended attributes.
    #[error("has the extended attribute {name}, which cannot be stored: {error}")]
    Attribute {
        /// Name of the attribute.
        name: String,
        /// What the file system said.
        error: String,
    },
}

impl ImportError {
    /// Wraps a refusal of the system with the path it was about.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Io {
                action,
                path,
                source,
            },
        }
    }

    pub(crate) fn malformed(what: &str, reason: impl ToString) -> Self {
        Self::Malformed {
            what: what.into(),
            reason: reason.to_string(),
        }
    }
}
