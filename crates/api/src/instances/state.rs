//! The states that a client sees.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is true of an instance now.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
pub enum InstanceState {
    /// The VMM is up, the guest not started.
    Created,
    /// The guest is booting.
    Initializing,
    /// The program has started and the agent has answered.
    Running,
    /// The VMM is up, its processors are halted.
    Paused,
    /// The guest has powered off, the VMM is still there.
    Shutdown,
    /// Neither VMM nor memory image.
    Stopped,
    /// No VMM, a complete memory image.
    Standby,
    /// As `Standby`, and marked: it cannot wake, forks may share its memory.
    Template,
    /// The facts contradict each other; `state_error` says how.
    Unknown,
}

impl InstanceState {
    /// Every state, in the order of the documentation.
    pub const ALL: [Self; 9] = [
        Self::Created,
        Self::Initializing,
        Self::Running,
        Self::Paused,
        Self::Shutdown,
        Self::Stopped,
        Self::Standby,
        Self::Template,
        Self::Unknown,
    ];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "Created",
            Self::Initializing => "Initializing",
            Self::Running => "Running",
            Self::Paused => "Paused",
            Self::Shutdown => "Shutdown",
            Self::Stopped => "Stopped",
            Self::Standby => "Standby",
            Self::Template => "Template",
            Self::Unknown => "Unknown",
        }
    }

    /// The name as a phase in `current_phase` and `phase_durations_ms`.
    pub const fn phase(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Initializing => "initializing",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Shutdown => "shutdown",
            Self::Stopped => "stopped",
            Self::Standby => "standby",
            Self::Template => "template",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that is no state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown state {0:?}")]
pub struct UnknownState(pub String);

impl FromStr for InstanceState {
    type Err = UnknownState;

    /// Case does not matter, so that command lines may say `running`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownState(text.to_owned()))
    }
}
