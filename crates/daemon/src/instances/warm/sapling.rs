//! A warm fork in the making: restored as far as its agent, beside its template's actor.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use guest::{Events, Link};
use hypervisor::{RamUse, Vm};
use memory::Owned;
use model::{ImageId, InstanceId, InstanceSpec, Target};
use network::{NetworkError, Usage};
use tokio::sync::oneshot;
use tracing::{error, warn};

use super::super::blocking::blocking_op;
use super::super::context::{Context, RESUME_DEADLINE};
use super::super::fork::hand_over;
use super::super::layout::InstanceDir;
use super::super::restoring::{Restored, Restoring, Source};
use super::super::{OpError, chain, slot};
use super::{Seat, WarmVm, clear, leave, remove};
use crate::instances::reaching::reach;

/// Time for the fork that was just made before the next one is prepared: whoever asked
/// for it has the processor first.
const PAUSE: Duration = Duration::from_millis(100);

/// Of so many slots of the pool one is kept free of warm forks, and one at least.
const KEPT_FREE: usize = 16;

/// Whether somebody wants a warm fork that is in the making.
struct Wanted(Option<oneshot::Receiver<()>>);

impl Wanted {
    /// Leaves the processor to whoever was forked just now, unless somebody waits.
    async fn pause(&mut self) -> Result<(), OpError> {
        let Some(hurried) = &mut self.0 else {
            return Ok(());
        };
        match tokio::time::timeout(PAUSE, hurried).await {
            Ok(Ok(())) => self.0 = None,
            Ok(Err(_)) => return Err(OpError::NotFound),
            Err(_) => {}
        }
        Ok(())
    }

    /// Waits until nobody will ever want it.
    async fn lost(&mut self) {
        if let Some(hurried) = &mut self.0
            && hurried.await.is_err()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}

/// A warm fork in the making.
pub(super) struct Sapling {
    pub(super) ctx: Arc<Context>,
    pub(super) id: InstanceId,
    pub(super) dir: InstanceDir,
    pub(super) source: InstanceDir,
    pub(super) image: ImageId,
    pub(super) spec: InstanceSpec,
    pub(super) source_of_ram: Source,
}

impl Sapling {
    pub(super) async fn grow(self, hurried: oneshot::Receiver<()>) -> Result<WarmVm, OpError> {
        let (ctx, id) = (Arc::clone(&self.ctx), self.id.clone());
        let grown = AssertUnwindSafe(self.try_grow(hurried)).catch_unwind();
        let Ok(result) = grown.await else {
            error!(fork = %id, "the making of a warm fork panicked: a defect of coppiced");
            end_remains(&ctx, &id).await;
            return Err(OpError::Broken);
        };
        result
    }

    async fn try_grow(mut self, hurried: oneshot::Receiver<()>) -> Result<WarmVm, OpError> {
        let mut wanted = Wanted(Some(hurried));
        wanted.pause().await?;
        let seat = self.take_seat().await?;
        let restored = self.restore(seat.as_deref(), wanted).await;
        let (Restored { vm, paged, mapped }, owned) = match restored {
            Ok(made) => made,
            Err(error) => {
                remove(&self.dir, &self.id).await;
                leave(&self.ctx, seat).await;
                return Err(error);
            }
        };
        match greet(&vm).await {
            Ok((link, events)) => Ok(WarmVm {
                vm,
                link,
                events,
                paged,
                mapped,
                seat,
                owned,
            }),
            Err(error) => {
                clear(vm.as_ref(), &self.dir, &self.id).await;
                leave(&self.ctx, seat).await;
                Err(error)
            }
        }
    }

    /// As the template's heirs have it: one that asks for more gets that when it takes over.
    async fn take_seat(&self) -> Result<Option<Box<Seat>>, OpError> {
        let spec = self.spec.network.inherited();
        if !spec.enabled {
            return Ok(None);
        }
        let policy = spec.policy_in(&self.spec.tags);
        let network = self.ctx.network.get()?;
        let usage = network.usage();
        if !has_room(usage) {
            return Err(OpError::Network(NetworkError::Exhausted {
                pool: network.pool().to_string(),
                capacity: usage.capacity,
            }));
        }
        let lease = network.take(self.id.as_str(), policy.clone()).await?;
        Ok(Some(Box::new(Seat { lease, policy })))
    }

    async fn restore(
        &mut self,
        seat: Option<&Seat>,
        mut wanted: Wanted,
    ) -> Result<(Restored, Owned), OpError> {
        let root = self.ctx.root_disk(&self.spec)?;
        let (source, dir, image) = (self.source.clone(), self.dir.clone(), self.image.clone());
        let vmm = self.spec.hypervisor.clone();
        let owned =
            blocking_op(move || hand_over(&source, Some(&image), &vmm, &dir, Target::Running))
                .await?;
        // Those before it may wait for the slot that this one has.
        let _permit = tokio::select! {
            permit = self.ctx.starts.acquire() => permit,
            () = wanted.lost() => return Err(OpError::NotFound),
        };
        let restoring = Restoring {
            id: self.id.clone(),
            dir: self.dir.clone(),
            image: self.image.clone(),
            root,
            ram: RamUse::Fork,
            source: std::mem::replace(&mut self.source_of_ram, Source::FILE),
            nic: seat.map(|seat| slot::nic(&seat.lease)),
            driver: Arc::clone(self.ctx.drivers.named(&self.spec.hypervisor)?),
        };
        Ok((restoring.restore(&self.ctx.pagers).await?, owned))
    }
}

/// Reaches the agent and lets it go through the motions of a command once: under
/// emulation the first time costs several times what the later ones do.
async fn greet(vm: &Arc<dyn Vm>) -> Result<(Link, Events), OpError> {
    let (link, events) = reach(vm.as_ref(), RESUME_DEADLINE).await?;
    // A guest whose programs moved before it had an identity of its own would be two
    // machines in one: such an image is forked cold.
    if !link.frozen() {
        return Err(OpError::HostNotReady(
            "the programs in the template's memory image do not stand still".to_owned(),
        ));
    }
    link.rehearse(RESUME_DEADLINE).await?;
    Ok((link, events))
}

/// Whether a warm fork may have one of the slots: who asks for a machine is to find one free.
fn has_room(usage: Usage) -> bool {
    let kept = (usage.capacity / KEPT_FREE).max(1);
    usage.capacity.saturating_sub(usage.in_use) > kept
}

/// Ends whatever was made under an id that is nobody's.
async fn end_remains(ctx: &Context, id: &InstanceId) {
    let dir = ctx.layout.instance(id);
    match ctx.drivers.adopt_any(&dir.run()).await {
        Ok(Some(vm)) => clear(vm.as_ref(), &dir, id).await,
        Ok(None) => remove(&dir, id).await,
        Err(error) => {
            warn!(fork = %id, why = %chain(&error), "what is left of a warm fork stays until the next start");
            return;
        }
    }
    let Ok(network) = ctx.network.get() else {
        return;
    };
    for (owner, lease) in network.leases() {
        if owner == id.as_str() {
            slot::give_back(ctx, lease.slot.0).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_forks_leave_the_last_slots_free() {
        let room = |capacity, in_use| {
            has_room(Usage {
                capacity,
                in_use,
                ready: 0,
            })
        };
        assert!(room(5, 3));
        assert!(!room(5, 4));
        assert!(!room(5, 5));
        assert!(room(64, 59));
        assert!(!room(64, 60));
    }
}
