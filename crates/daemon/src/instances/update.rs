//! Changes to a record, and to what its machine may do on the network.

use model::{PolicyPatch, Refusal};
use network::Slot;
use tracing::warn;

use super::actor::Actor;
use super::command::Patch;
use super::{OpError, chain};

impl Actor {
    /// Applies `patch`. The network comes first: it may refuse.
    pub(super) async fn update(&mut self, patch: Patch) -> Result<(), OpError> {
        let mut spec = self.record.spec.clone();
        if let Some(tags) = patch.tags {
            spec.tags = tags;
        }
        spec.env.extend(patch.env);
        if !spec.network.enabled && patch.network != PolicyPatch::default() {
            return Err(Refusal::request("the instance has no network").into());
        }
        spec.network.policy = patch.network.applied_to(&spec.network.policy);
        let before = self.policy();
        let after = spec.network.policy_in(&spec.tags);
        let changed = self.record.lease.filter(|_| after != before);
        if let Some(lease) = changed {
            let network = self.ctx.network.get()?;
            network.set_policy(Slot(lease.slot), after).await?;
        }
        let saved = self
            .save(move |record| {
                if let Some(expires_at) = patch.expires_at {
                    record.expires_at = expires_at;
                }
                record.spec = spec;
                Ok(())
            })
            .await;
        if let (Err(_), Some(lease), Ok(network)) = (&saved, changed, self.ctx.network.get())
            && let Err(error) = network.set_policy(Slot(lease.slot), before).await
        {
            warn!(instance = %self.id, why = %chain(&error), "the network keeps a policy that is not recorded");
        }
        saved
    }
}
