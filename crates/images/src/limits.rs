//! What an archive may cost.

use std::fmt;

use crate::ImportError;

/// Bounds on an import. The defaults let every ordinary image through, and stop a hostile one before
/// it fills a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the archive as it comes in.
    pub archive_bytes: u64,
    /// Bytes of all layers together, uncompressed.
    pub unpacked_bytes: u64,
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Entries of all layers together, with the directories that are made on the way to them.
    pub entries: u64,
    /// Bytes of the paths of all these together; they are kept in memory.
    pub names_bytes: u64,
    /// How many times larger a layer may be than it is compressed. Only looked at above
    /// [`Limits::RATIO_FREE_BYTES`].
    pub compression_ratio: u64,
    /// Bytes of a path.
    pub path_bytes: u64,
    /// Directories above an entry.
    pub path_depth: u64,
    /// Bytes of an index, manifest or config.
    pub manifest_bytes: u64,
    /// Layers of an image.
    pub layers: u64,
}

impl Limits {
    /// Layers smaller than this may be compressed as well as they like: a bomb is large.
    pub const RATIO_FREE_BYTES: u64 = 64 << 20;

    fn value(&self, limit: Limit) -> u64 {
        match limit {
            Limit::ArchiveBytes => self.archive_bytes,
            Limit::UnpackedBytes => self.unpacked_bytes,
            Limit::FileBytes => self.file_bytes,
            Limit::Entries => self.entries,
            Limit::NamesBytes => self.names_bytes,
            Limit::CompressionRatio => self.compression_ratio,
            Limit::PathBytes => self.path_bytes,
            Limit::PathDepth => self.path_depth,
            Limit::ManifestBytes => self.manifest_bytes,
            Limit::Layers => self.layers,
        }
    }

    /// The error for a limit that was met while reading `entry`.
    pub(crate) fn exceeded(&self, limit: Limit, entry: impl Into<String>) -> ImportError {
        ImportError::LimitExceeded {
            entry: entry.into(),
            limit,
            value: self.value(limit),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            archive_bytes: 32 << 30,
            unpacked_bytes: 64 << 30,
            // What the size field of a plain tar header can say, rounded down.
            file_bytes: 8 << 30,
            entries: 2_000_000,
            // Large images have half a million paths of some 80 bytes.
            names_bytes: 512 << 20,
            // Program text compresses 3 to 5 times, logs up to 20 times, zeros 1,000 times.
            compression_ratio: 200,
            // PATH_MAX of Linux, so that every path can be given to a system call.
            path_bytes: 4095,
            path_depth: 128,
            // What containerd reads of a manifest, too.
            manifest_bytes: 4 << 20,
            // Docker itself stops at 127.
            layers: 512,
        }
    }
}

/// Which of the [`Limits`] was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// [`Limits::archive_bytes`]
    ArchiveBytes,
    /// [`Limits::unpacked_bytes`]
    UnpackedBytes,
    /// [`Limits::file_bytes`]
    FileBytes,
    /// [`Limits::entries`]
    Entries,
    /// [`Limits::names_bytes`]
    NamesBytes,
    /// [`Limits::compression_ratio`]
    CompressionRatio,
    /// [`Limits::path_bytes`]
    PathBytes,
    /// [`Limits::path_depth`]
    PathDepth,
    /// [`Limits::manifest_bytes`]
    ManifestBytes,
    /// [`Limits::layers`]
    Layers,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ArchiveBytes => "size of the archive",
            Self::UnpackedBytes => "unpacked size",
            Self::FileBytes => "size of a file",
            Self::Entries => "number of entries",
            Self::NamesBytes => "length of all paths",
            Self::CompressionRatio => "compression ratio",
            Self::PathBytes => "length of a path",
            Self::PathDepth => "depth of a path",
            Self::ManifestBytes => "size of a manifest",
            Self::Layers => "number of layers",
        })
    }
}
