//! What a machine is made of, as it was asked for: complete and valid, because
//! it is only built by converting a checked request.
//!
//! It derives serde because the record on disk contains it; a golden record in
//! the store's tests keeps old files readable.

use std::collections::BTreeMap;

use crate::{ByteSize, MemorySpec, NetworkSpec, SnapshotPolicy, Tags};

/// A command that runs inside each new fork before it is announced `Running`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PostFork {
    /// Program and arguments.
    pub command: Vec<String>,
    /// How long it may take, in milliseconds.
    pub timeout_ms: u64,
}

/// The specification of an instance.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct InstanceSpec {
    /// The image reference as the user gave it, normalised.
    pub image: String,
    /// The image that the reference meant when the instance was made: `sha256:…`.
    pub image_digest: String,
    /// `os/arch`.
    pub platform: String,
    /// The VMM by name.
    pub hypervisor: String,
    /// Guest RAM.
    pub size: ByteSize,
    /// Size of the writable disk.
    pub overlay_size: ByteSize,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// Environment of the program, over the image's own.
    pub env: BTreeMap<String, String>,
    /// The user's tags.
    pub tags: Tags,
    /// Replaces the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's cmd.
    pub cmd: Option<Vec<String>>,
    /// Runs in each new fork.
    pub post_fork: Option<PostFork>,
    /// How it is connected; older records have none.
    #[serde(default)]
    pub network: NetworkSpec,
    /// How its forks come by their memory; older records have none.
    #[serde(default)]
    pub memory: MemorySpec,
    /// How its memory images are written; older records have none.
    #[serde(default)]
    pub snapshots: SnapshotPolicy,
}
