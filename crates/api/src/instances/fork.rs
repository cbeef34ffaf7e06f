//! Forks: one, or many in a call.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Instance, MemoryBackend, NetworkRequest};
use crate::error::ErrorDetail;

/// `POST /instances/{id}/fork`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ForkRequest {
    /// Name of the fork; with `count` above 1 a prefix: `web-1`, `web-2`, …
    pub name: String,
    /// Allow a running source: it is paused, captured and resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_running: Option<bool>,
    /// State that the fork is brought to; what fits the source by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_state: Option<ForkTarget>,
    /// How many, 1 to 1000. When present, even as 1, the answer is a list. An
    /// extension of coppice, as are all fields below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub count: Option<u32>,
    /// Share the memory of the source, a standby source being promoted to a
    /// template first; true for a template by default, false otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_memory: Option<bool>,
    /// Take the memory from this template. Not with `share_memory: true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_id: Option<String>,
    /// Merged into the source's environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, String>>,
    /// Replaces the source's labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
    /// Run in the fork before it counts as running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_fork: Option<PostFork>,
    /// Changes what the fork may do on the network. Ports of the source are not inherited; they can
    /// be published with one fork only, so not together with `count` above 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkRequest>,
    /// What its memory comes from; what the template says by default, or else the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_backend: Option<MemoryBackend>,
    /// The VMM to use: the source's, for no other can continue its memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypervisor: Option<String>,
}

/// The state that a fork is brought to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum ForkTarget {
    /// Its disk only.
    Stopped,
    /// Its disk and a memory image.
    Standby,
    /// Awake.
    Running,
}

/// A command that makes a fork its own machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PostFork {
    /// Program and arguments; a non-zero exit fails the fork.
    pub command: Vec<String>,
    /// Longest run as a Go duration; the server's limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(examples("10s"))]
    pub timeout: Option<String>,
}

/// The answer to a fork request: the fork itself, or with `count` a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ForkResponse {
    /// Without `count`.
    One(Box<Instance>),
    /// With `count`.
    Many(ForkManyResponse),
}

/// The answer to a fork request with `count`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ForkManyResponse {
    /// One entry for each requested fork, in order.
    pub forks: Vec<ForkOutcome>,
}

/// What became of one fork: either `instance`, or `name` and `error`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ForkOutcome {
    /// The fork, when it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Instance>,
    /// The name it would have had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorDetail>,
}

impl ForkOutcome {
    /// A fork that was made.
    pub fn made(instance: Instance) -> Self {
        Self {
            instance: Some(instance),
            name: None,
            error: None,
        }
    }

    /// A fork that could not be made.
    pub fn failed(name: impl Into<String>, error: ErrorDetail) -> Self {
        Self {
            instance: None,
            name: Some(name.into()),
            error: Some(error),
        }
    }
}
