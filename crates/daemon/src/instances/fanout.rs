//! Fan-out: one request, many forks, each with its own outcome.

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use model::{InstanceId, State};
use tracing::warn;

use super::command::{Command, ForkOrder, ForkResult, ForkSlot, Outcome};
use super::registry::{Instances, send};
use super::{OpError, chain};

/// Births that are under way at one time for one request; how many VMMs really start
/// together is bounded for the whole daemon in [`super::Context::starts`].
const PARALLEL_BIRTHS: usize = 64;

impl Instances {
    /// Makes the forks of `order` from `source`. One result for each, in order; an error
    /// only if none could be made.
    pub async fn fork(
        self: &Arc<Self>,
        source: &InstanceId,
        order: ForkOrder,
    ) -> Result<Vec<ForkResult>, OpError> {
        let all = Arc::clone(self);
        let source = source.clone();
        // In a task of its own: a client that hangs up must not leave recorded forks
        // that nobody brings to life.
        let work = tokio::spawn(async move { all.make_and_raise(&source, order).await });
        match work.await {
            Ok(result) => result,
            Err(failed) => std::panic::resume_unwind(failed.into_panic()),
        }
    }

    async fn make_and_raise(
        self: &Arc<Self>,
        source: &InstanceId,
        order: ForkOrder,
    ) -> Result<Vec<ForkResult>, OpError> {
        let Outcome::Forks(made) = self.call(source, Command::Fork(Box::new(order))).await? else {
            return Err(OpError::NotFound);
        };
        let mut results: Vec<ForkResult> = stream::iter(made.slots)
            .map(|slot| self.raise(slot))
            .buffered(PARALLEL_BIRTHS)
            .collect()
            .await;
        self.ctx.changes.settled().await;
        let none_lives = results.iter().all(|result| result.outcome.is_err());
        if made.promoted {
            self.settle_promotion(source, !none_lives).await;
        }
        if none_lives
            && !results.is_empty()
            && let Err(first) = results.swap_remove(0).outcome
        {
            return Err(first);
        }
        Ok(results)
    }

    /// Keeps the promotion that came with a fork request, or takes it back.
    pub(super) async fn settle_promotion(&self, source: &InstanceId, lived: bool) {
        let settle = Command::SettlePromotion { lived };
        match self.call(source, settle).await {
            Ok(_) | Err(OpError::Refused(_) | OpError::NotFound) => {}
            Err(error) => {
                warn!(instance = %source, why = %chain(&error), "its promotion is left to the next start");
            }
        }
    }

    async fn raise(self: &Arc<Self>, slot: ForkSlot) -> ForkResult {
        let outcome = match slot.made {
            Ok((record, birth)) => {
                let id = record.id.clone();
                let handle = self.spawn(record);
                send(&handle, Command::BecomeFork(Box::new(birth)))
                    .await
                    .map(|_| id)
            }
            Err(error) => Err(error),
        };
        ForkResult {
            name: slot.name,
            outcome,
        }
    }

    /// Resolves `template_id`: the memory comes from the template, everything else from
    /// `source`. Both must be of the same image and VMM.
    pub async fn fork_with_template(
        self: &Arc<Self>,
        source: &InstanceId,
        template: &InstanceId,
        mut order: ForkOrder,
    ) -> Result<Vec<ForkResult>, OpError> {
        let heir_of = self.view(source).await?;
        let memory_of = self.view(template).await?;
        let (heir, owner) = (&heir_of.record.spec, &memory_of.record.spec);
        if heir.image_digest != owner.image_digest {
            return Err(model::Refusal::request(format!(
                "template_id names a template of image {}, the source is made of {}",
                owner.image, heir.image
            ))
            .into());
        }
        if heir.hypervisor != owner.hypervisor {
            return Err(model::Refusal::request(format!(
                "template_id names a template of hypervisor {}, the source has {}",
                owner.hypervisor, heir.hypervisor
            ))
            .into());
        }
        let forkable = matches!(
            heir_of.published.state,
            State::Stopped | State::Standby | State::Template
        );
        if !forkable {
            return Err(model::Refusal::state(format!(
                "cannot fork an instance in state {}",
                heir_of.published.state
            ))
            .into());
        }
        order.heir_of = Some(Box::new(heir_of.record));
        self.fork(template, order).await
    }
}
