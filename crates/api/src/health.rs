//! `GET /health`, the one endpoint that asks for no token.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The daemon answers requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Always `ok`: a daemon that is not well does not answer.
    #[schema(examples("ok"))]
    pub status: String,
}

impl Health {
    /// The only answer there is.
    pub fn ok() -> Self {
        Self {
            status: "ok".to_owned(),
        }
    }
}
