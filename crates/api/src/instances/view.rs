//! The instance as the server shows it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::{
    InstanceMemory, InstanceNetwork, InstanceState, MemoryBackend, MemoryImage, Prefetch,
    SnapshotPolicy,
};

/// One microVM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Instance {
    /// 24 lower-case letters and digits, a letter first.
    pub id: String,
    /// Unique among the instances of this server.
    pub name: String,
    /// Normalised reference of the image.
    pub image: String,
    /// What is true of it now.
    pub state: InstanceState,
    /// What contradicts what; only with `Unknown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_error: Option<String>,
    /// The VMM that runs it, such as `qemu`.
    pub hypervisor: String,
    /// `os/arch[/variant]` of the image used.
    pub platform: String,
    /// Guest memory for people, such as `1.0 GB`.
    pub size: String,
    /// Size of the writable disk layer for people.
    pub overlay_size: String,
    /// Processors of the guest.
    pub vcpus: u32,
    /// Environment given on create, on top of the image's.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Labels given by users.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// How it is connected.
    pub network: InstanceNetwork,
    /// Volumes attached to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeMount>,
    /// Whether a complete memory image of its own exists.
    pub has_snapshot: bool,
    /// How its memory images are written; absent when that is left to the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_policy: Option<SnapshotPolicy>,
    /// Exit code of its program; null until it has exited.
    pub exit_code: Option<i32>,
    /// How its program ended; null until it has exited.
    pub exit_message: Option<String>,
    /// When its record was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When its VMM was last started.
    #[serde(
        default,
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub started_at: Option<OffsetDateTime>,
    /// When its VMM last went away.
    #[serde(
        default,
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub stopped_at: Option<OffsetDateTime>,
    /// When it will be deleted; null for never.
    #[serde(default, with = "time::serde::rfc3339::option")]
    #[schema(required)]
    pub expires_at: Option<OffsetDateTime>,
    /// The state it is in, in lower case.
    pub current_phase: String,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub current_phase_since: OffsetDateTime,
    /// Milliseconds spent in each phase, the current one up to this answer.
    #[serde(default)]
    pub phase_durations_ms: BTreeMap<String, u64>,
    /// Instances whose parent is this one, in whatever state. Read-only.
    pub fork_count: u64,
    /// `fork_count > 0`: it can neither wake nor be deleted. Read-only.
    pub mem_locked: bool,
    /// Id of the template whose memory this one shares. Read-only.
    #[schema(required)]
    pub fork_of_template: Option<String>,
    /// Where its memory came from. Read-only.
    pub memory: InstanceMemory,
    /// What its memory comes from: `file` or `uffd`; absent when its guest was booted. Read-only. An extension of
    /// coppice, as are the fields below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_backend: Option<MemoryBackend>,
    /// What the memory of its forks comes from; absent when that is left to the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork_memory_backend: Option<MemoryBackend>,
    /// What is done with the pages that its forks touch first; of templates only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefetch: Option<Prefetch>,
    /// How the memory image is stored that it wakes from; absent when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_image: Option<MemoryImage>,
}

/// A volume within an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeMount {
    /// Which volume.
    pub volume_id: String,
    /// Where in the guest.
    pub mount_path: String,
    /// Whether the guest cannot write to it.
    #[serde(default)]
    pub readonly: bool,
}
