//! What can go wrong with an image.

use std::io;
use std::path::{Path, PathBuf};

/// Why an image cannot be written, opened, verified or loaded.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The directory has no manifest: the image was never finished, or is being removed.
    #[error("no complete memory image in {}: the manifest is missing", dir.display())]
    NotComplete {
        /// The directory that was looked at.
        dir: PathBuf,
    },
    /// A file does not hold what the manifest says, or the manifest itself is damaged.
    #[error("corrupt memory image: {file}: {what}")]
    Corrupt {
        /// File name inside the image's directory.
        file: String,
        /// The field or part that is wrong.
        what: String,
    },
    /// The manifest is of a version that this program does not read.
    #[error("memory image format {found} is not known here (this program reads {supported})")]
    Version {
        /// Version found in the manifest.
        found: u32,
        /// Version this program reads.
        supported: u32,
    },
    /// A file system call failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// Verb of the failed call.
        action: &'static str,
        /// File or directory it was made on.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The caller left out a part, or gave parts that do not fit together.
    #[error("incomplete draft: {what}")]
    Draft {
        /// What is missing or does not fit.
        what: String,
    },
}

impl ImageError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    pub(crate) fn corrupt(file: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Corrupt {
            file: file.into(),
            what: what.into(),
        }
    }

    /// True when the bytes are wrong, as opposed to a call that failed.
    #[must_use]
    pub fn is_corruption(&self) -> bool {
        match self {
            Self::NotComplete { .. } | Self::Corrupt { .. } | Self::Version { .. } => true,
            Self::Io { .. } | Self::Draft { .. } => false,
        }
    }
}
