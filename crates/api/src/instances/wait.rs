//! Waiting for a state.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::InstanceState;

/// Query of `GET /instances/{id}/wait`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WaitQuery {
    /// The state to wait for; `Unknown` cannot be waited for.
    pub state: InstanceState,
    /// Go duration, `60s` by default, at most `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
}

/// What a wait saw. Not reaching the state is not an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WaitResponse {
    /// The state at the end of the wait.
    pub state: InstanceState,
    /// Only with `Unknown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_error: Option<String>,
    /// Whether the time ran out first.
    pub timed_out: bool,
}
