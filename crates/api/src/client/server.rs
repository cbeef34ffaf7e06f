//! Is the server there, and what can it do.

use super::{Client, ClientError};
use crate::capabilities::Capabilities;
use crate::health::Health;

impl Client {
    /// Whether the server answers.
    pub async fn health(&self) -> Result<Health, ClientError> {
        self.get(&["health"]).decode().await
    }

    /// What the server can do.
    pub async fn capabilities(&self) -> Result<Capabilities, ClientError> {
        self.get(&["capabilities"]).decode().await
    }
}
