//! Changes to a record that touch no machine.

use super::OpError;
use super::actor::Actor;
use super::command::Patch;

impl Actor {
    /// Applies `patch`.
    pub(super) async fn update(&mut self, patch: Patch) -> Result<(), OpError> {
        self.save(move |record, _| {
            if let Some(expires_at) = patch.expires_at {
                record.expires_at = expires_at;
            }
            if let Some(tags) = patch.tags {
                record.spec.tags = tags;
            }
            record.spec.env.extend(patch.env);
            Ok(())
        })
        .await
    }
}
