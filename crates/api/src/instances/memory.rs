//! Memory: where it came from, and how forks come by theirs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where the memory of an instance came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InstanceMemory {
    /// In which way.
    pub mode: MemoryMode,
    /// The memory image, when one is involved.
    pub image_id: Option<String>,
}

/// In which way an instance came by its memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MemoryMode {
    /// Its guest was booted.
    #[default]
    Booted,
    /// Its pages are a memory image's until it writes to them.
    Shared,
    /// Its pages are a full copy.
    Copied,
}

impl MemoryMode {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Booted => "booted",
            Self::Shared => "shared",
            Self::Copied => "copied",
        }
    }
}

/// What the memory of forks comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MemoryBackend {
    /// `file` for a plain image, `uffd` for one that is compressed or made of layers, where the VMM can.
    Auto,
    /// The memory image is loaded once and mapped: forks share its pages until they write to them.
    File,
    /// A pager answers page faults: pages that were touched belong to the fork alone. Not every VMM can.
    Uffd,
}

impl MemoryBackend {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::File => "file",
            Self::Uffd => "uffd",
        }
    }
}

/// What is done with the pages that forks of a template touch first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Prefetch {
    /// Recorded by the first forks, and filled or mapped ahead of faults in later ones.
    On,
    /// Neither recorded nor used.
    Off,
    /// Forgotten and recorded anew; meanwhile nothing is filled ahead.
    Record,
}

impl Prefetch {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Record => "record",
        }
    }
}
