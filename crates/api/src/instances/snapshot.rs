//! How memory images are written, and how one is.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /instances/{id}/standby`, body optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StandbyRequest {
    /// Of this memory image; as the instance's policy has it when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<SnapshotCompression>,
    /// Go duration, `0s` alone: images are compressed while they are written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(examples("0s"))]
    pub compression_delay: Option<String>,
}

/// Whether and how memory images are compressed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotCompression {
    /// Whether at all.
    pub enabled: bool,
    /// How; zstd by default, which is what this server writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<CompressionAlgorithm>,
    /// Of zstd, 1 (fastest, the default) to 19 (smallest).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<i64>,
}

/// A way to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CompressionAlgorithm {
    /// Written by this server.
    Zstd,
    /// Known to the contract, not written by this server.
    Lz4,
}

impl CompressionAlgorithm {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
        }
    }
}

/// How the memory images of an instance are written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotPolicy {
    /// As the server has it when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<SnapshotCompression>,
    /// Go duration, `0s` alone: images are compressed while they are written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(examples("0s"))]
    pub standby_compression_delay: Option<String>,
}

/// The memory image that a sleeping instance wakes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemoryImage {
    /// How its layers are stored.
    pub encoding: ImageEncoding,
    /// Layers on top of each other.
    pub layers: u64,
    /// Bytes of memory in them; the rest of the guest's memory is zero.
    pub memory_bytes: u64,
    /// Bytes that they take on the disk, those shared with images of other instances included.
    pub stored_bytes: u64,
}

/// How the layers of a memory image are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImageEncoding {
    /// As they are.
    Plain,
    /// All compressed.
    Zstd,
    /// Some of them compressed.
    Mixed,
}

impl ImageEncoding {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Zstd => "zstd",
            Self::Mixed => "mixed",
        }
    }
}
