//! What is kept of an instance on disk: facts and intents, never a state.

use crate::{Backend, ImageId, InstanceId, InstanceSpec, Name, NetworkLease, PhaseClock};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// Milliseconds from `earlier` to this moment; zero if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }

    /// This moment plus `duration`, at most the end of time.
    #[must_use]
    pub fn plus(self, duration: std::time::Duration) -> Self {
        let ms = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(ms))
    }
}

/// Where an instance's RAM came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemoryMode {
    /// The guest booted.
    Booted,
    /// Mapped copy-on-write from an image that others map too.
    Shared,
    /// A full copy of an image.
    Copied,
}

/// Where an instance's RAM came from, and from which image.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MemoryOrigin {
    /// How.
    pub mode: MemoryMode,
    /// The image, unless it booted.
    pub image_id: Option<ImageId>,
    /// What its RAM comes from now; none if it booted, and in records of earlier versions, which knew files only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Backend>,
}

impl MemoryOrigin {
    /// RAM of a machine that booted.
    #[must_use]
    pub fn booted() -> Self {
        Self {
            mode: MemoryMode::Booted,
            image_id: None,
            backend: None,
        }
    }
}

/// How the program inside ended.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ExitInfo {
    /// Exit status; 128 + signal when a signal ended it; unknown when nobody could tell.
    pub code: Option<i32>,
    /// In words.
    pub message: Option<String>,
}

/// An operation that was begun and is not known to have ended: written before
/// the first deed, removed after the last.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Intent {
    /// Boot it.
    Boot,
    /// Write the memory image `image`, then end the VMM.
    Standby {
        /// The image being written.
        image: ImageId,
    },
    /// Wake it from its standby image.
    Restore,
    /// Power it off.
    Stop,
    /// Make this instance as a fork. Until it is done nobody was promised anything.
    BecomeFork,
    /// Capture its memory for a fork while it runs.
    Capture,
    /// Remove it.
    Delete,
}

/// The record of one instance. Its parent link is a column of its own in the
/// database, a foreign key, and is repeated here only as data.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct InstanceRecord {
    /// Its id.
    pub id: InstanceId,
    /// Its name.
    pub name: Name,
    /// What it is made of.
    pub spec: InstanceSpec,
    /// The template it was forked from.
    pub parent: Option<InstanceId>,
    /// It is marked a template.
    pub template: bool,
    /// The mark came with a fork request that is not known to be over: a start of the daemon takes it back if no
    /// fork came of it. Records of earlier versions lack it.
    #[serde(default)]
    pub promoting: bool,
    /// The image to wake from; none while it runs or is stopped.
    pub standby: Option<ImageId>,
    /// The image that its running RAM is mapped from; the next standby may build on it.
    pub base: Option<ImageId>,
    /// Where its RAM came from.
    pub memory: MemoryOrigin,
    /// Its place on the network, while it has a VMM.
    #[serde(default)]
    pub lease: Option<NetworkLease>,
    /// The operation under way.
    pub intent: Option<Intent>,
    /// How its program ended, since the last start.
    pub exit: Option<ExitInfo>,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When it last came up.
    pub started_at: Option<UnixMillis>,
    /// When it last went down; none since it came up again, or if it never was up.
    pub stopped_at: Option<UnixMillis>,
    /// When it is to be deleted.
    pub expires_at: Option<UnixMillis>,
    /// Time in each state.
    pub phases: PhaseClock,
}
