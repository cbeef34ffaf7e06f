//! Changes to a record, and to what its machine may do on the network.

use model::network::Policy;
use model::{NetworkLease, PolicyPatch, Refusal};
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
        self.check_wish(patch.memory.backend)?;
        spec.memory = patch.memory.applied_to(spec.memory);
        if !spec.network.enabled && patch.network != PolicyPatch::default() {
            return Err(Refusal::request("the instance has no network").into());
        }
        spec.network.policy = patch.network.applied_to(&spec.network.policy);
        let before = self.policy();
        let after = spec.network.policy_in(&spec.tags);
        let changed = self.record.lease.filter(|_| after != before);
        if changed.is_some() {
            self.refuse_claimed(&after.publish, &before.publish).await?;
        }
        if let Some(lease) = changed
            && let Err(error) = self.put_in_force(lease, &after, &before).await
        {
            self.put_back(lease, &before, &after).await;
            return Err(error);
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
        if let (Err(_), Some(lease)) = (&saved, changed) {
            self.put_back(lease, &before, &after).await;
        }
        if saved.is_ok() {
            self.heed_prefetch(patch.memory);
        }
        saved
    }

    /// Lets `after` hold for a running machine: the kernel's part first, which sees ports that others have.
    async fn put_in_force(
        &self,
        lease: NetworkLease,
        after: &Policy,
        before: &Policy,
    ) -> Result<(), OpError> {
        let network = self.ctx.network.get()?;
        let set = network.set_policy(Slot(lease.slot), after.clone()).await;
        if let Err(error) = set {
            return Err(self.whose(error).await);
        }
        if after.publish != before.publish {
            self.ctx.ports.open(&self.id, &after.publish).await?;
        }
        Ok(())
    }

    async fn put_back(&self, lease: NetworkLease, before: &Policy, after: &Policy) {
        if let Err(error) = self.put_in_force(lease, before, after).await {
            warn!(instance = %self.id, why = %chain(&error), "the network keeps a policy that is not recorded");
        }
    }
}
