//! A way for tests to stand between the daemon and its records: to fail a use of them,
//! or to stop the daemon for good right before or after one.

use async_trait::async_trait;

use super::StoreError;

/// Called around each use of the records.
#[async_trait]
pub trait Hook: Send + Sync {
    /// Before; an error takes the place of the use.
    async fn before(&self) -> Result<(), StoreError>;
    /// After one that was let pass, whatever came of it.
    async fn after(&self);
}
