//! Warm forks: machines of a template that are restored ahead of the request for them.
//!
//! A warm fork is a VM whose guest has woken from the template's image as far as its
//! agent; every program in it stands still, as it was frozen for the image. It has a
//! directory but no record: it is no instance, and a daemon that starts removes it like
//! whatever else no record names. A fork that takes it over becomes the instance of the
//! id it was made under, and gives the guest its identity before a program moves.
//!
//! They are kept for templates that are being forked: made after the first fork, ended
//! when the template has not been forked for a while.

mod sapling;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use guest::{Events, Link};
use hypervisor::{Vm, VmStatus};
use memory::Owned;
use model::network::Policy;
use model::{Backend, InstanceId};
use network::{Lease, NetworkError};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::actor::Actor;
use super::blocking::blocking_op;
use super::context::Context;
use super::layout::InstanceDir;
use super::pagers::{Mapped, Paged};
use super::restoring::Source;
use super::{OpError, chain, disk, slot};
use crate::entropy;
use sapling::Sapling;

/// How many warm forks a template keeps, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WarmPolicy {
    /// Warm forks of each template; 0 = none.
    pub forks: usize,
    /// Time without a fork after which they are ended.
    pub idle: Duration,
}

/// A machine whose agent waits for an identity.
pub(super) struct WarmVm {
    pub vm: Arc<dyn Vm>,
    pub link: Link,
    pub events: Events,
    /// It gets its memory from a pager.
    pub paged: Option<Arc<Paged>>,
    /// It maps its template's memory.
    pub mapped: Option<Arc<Mapped>>,
    pub seat: Option<Box<Seat>>,
    /// How it came to own its memory image.
    pub owned: Owned,
}

/// A warm fork's place on the network, and what it may do there as long as it is nobody.
pub(super) struct Seat {
    pub lease: Lease,
    pub policy: Policy,
}

/// A warm fork, ready or on its way.
pub(super) struct WarmFork {
    pub id: InstanceId,
    backend: Backend,
    stage: Stage,
}

enum Stage {
    Growing {
        /// Said: somebody waits for it. Dropped: nobody will, and what can be left is left.
        hurry: oneshot::Sender<()>,
        task: JoinHandle<Result<WarmVm, OpError>>,
    },
    Ready(WarmVm),
}

/// The warm forks of one template.
#[derive(Default)]
pub(super) struct WarmPool {
    forks: VecDeque<WarmFork>,
    /// When they are ended.
    until: Option<Instant>,
}

/// What a pool has to tell its actor.
pub(super) enum WarmNews {
    /// A fork that was growing is ready, or failed; it is in its place.
    Settled,
    /// The template has not been forked for long.
    Idle,
}

impl WarmFork {
    /// The machine; waits for one that is on its way. Nothing is left of one that failed.
    pub(super) async fn machine(self) -> Result<WarmVm, OpError> {
        match self.stage {
            Stage::Ready(machine) => Ok(machine),
            Stage::Growing { hurry, task } => {
                // A task that is past its pause listens no more.
                let _ = hurry.send(());
                finished(task.await)
            }
        }
    }
}

impl std::fmt::Debug for WarmFork {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "WarmFork({})", self.id)
    }
}

impl Drop for Actor {
    /// Nobody else knows of the warm forks of an actor that panics.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let forks = std::mem::take(&mut self.warm.forks);
        let ctx = Arc::clone(&self.ctx);
        tokio::spawn(async move {
            for fork in forks {
                end(&ctx, fork).await;
            }
        });
    }
}

impl WarmPool {
    /// The VMs that are ready.
    pub(super) fn vms(&self) -> Vec<Arc<dyn Vm>> {
        let ready = self.forks.iter().filter_map(|fork| match &fork.stage {
            Stage::Ready(machine) => Some(Arc::clone(&machine.vm)),
            Stage::Growing { .. } => None,
        });
        ready.collect()
    }

    /// Waits until there is something to do. Cancel safe.
    pub(super) async fn news(&mut self) -> WarmNews {
        let until = self.until.filter(|_| !self.forks.is_empty());
        let growing = self.forks.iter_mut().enumerate().find_map(|(at, fork)| {
            let Stage::Growing { task, .. } = &mut fork.stage else {
                return None;
            };
            Some((at, task))
        });
        let Some((at, task)) = growing else {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
            return WarmNews::Idle;
        };
        let grown = finished(task.await);
        let Some(mut fork) = self.forks.remove(at) else {
            return WarmNews::Settled;
        };
        match grown {
            Ok(machine) => {
                fork.stage = Stage::Ready(machine);
                self.forks.push_front(fork);
                crate::metrics::warm_fork("made");
            }
            Err(OpError::Network(NetworkError::Exhausted { .. })) => {
                debug!(fork = %fork.id, "no warm fork is made: few addresses are free");
            }
            Err(error) => {
                warn!(fork = %fork.id, why = %chain(&error), "a warm fork could not be made");
                crate::metrics::warm_fork("failed");
            }
        }
        WarmNews::Settled
    }
}

impl Actor {
    /// Takes up to `count` warm forks with RAM from `backend` out of the pool.
    pub(super) async fn take_warm(&mut self, count: usize, backend: Backend) -> VecDeque<WarmFork> {
        let mut taken = VecDeque::new();
        while taken.len() < count
            && let Some(fit) = self
                .warm
                .forks
                .iter()
                .position(|fork| fork.backend == backend)
            && let Some(fork) = self.warm.forks.remove(fit)
        {
            let dead = match &fork.stage {
                Stage::Ready(machine) => {
                    !matches!(machine.vm.status().await, Ok(VmStatus::Running))
                }
                Stage::Growing { .. } => false,
            };
            if dead {
                end(&self.ctx, fork).await;
            } else {
                taken.push_back(fork);
            }
        }
        taken
    }

    /// Puts back what was taken and not used.
    pub(super) fn return_warm(&mut self, fork: WarmFork) {
        self.warm.forks.push_front(fork);
    }

    /// Prepares warm forks for the next requests, beside the actor.
    pub(super) async fn refill_warm(&mut self) {
        let policy = self.ctx.warm;
        // Where forks that want nothing are refused, none are prepared.
        let Ok(backend) = self.usual_backend().await else {
            return;
        };
        let (true, Some(image)) = (self.record.template, self.record.standby.clone()) else {
            return;
        };
        self.warm.until = Some(Instant::now() + policy.idle);
        while self.warm.forks.len() < policy.forks {
            let id = entropy::instance_id();
            let (hurry, hurried) = oneshot::channel();
            let sapling = Sapling {
                ctx: Arc::clone(&self.ctx),
                dir: self.ctx.layout.instance(&id),
                id: id.clone(),
                source: self.dir.clone(),
                image: image.clone(),
                spec: self.record.spec.clone(),
                source_of_ram: Source {
                    backend,
                    hot: Some(self.ctx.pagers.hot_order(
                        &self.dir,
                        &image,
                        self.record.spec.memory.prefetch,
                        true,
                    )),
                },
            };
            let task = tokio::spawn(sapling.grow(hurried));
            let stage = Stage::Growing { hurry, task };
            self.warm.forks.push_back(WarmFork { id, backend, stage });
        }
    }

    pub(super) async fn warm_news(&mut self, news: WarmNews) {
        if let WarmNews::Idle = news {
            self.drop_warm().await;
        }
        self.show();
    }

    /// Ends all warm forks; nothing of them is left.
    pub(super) async fn drop_warm(&mut self) {
        self.warm.until = None;
        while let Some(fork) = self.warm.forks.pop_front() {
            end(&self.ctx, fork).await;
        }
    }
}

fn finished(
    joined: Result<Result<WarmVm, OpError>, tokio::task::JoinError>,
) -> Result<WarmVm, OpError> {
    // Without a result when the daemon ends: one that panics has one.
    joined.unwrap_or(Err(OpError::Broken))
}

async fn end(ctx: &Context, fork: WarmFork) {
    crate::metrics::warm_fork("ended");
    let machine = match fork.stage {
        Stage::Ready(machine) => Ok(machine),
        Stage::Growing { hurry, task } => {
            drop(hurry);
            finished(task.await)
        }
    };
    match machine {
        Ok(machine) => {
            drop((machine.link, machine.events));
            let dir = ctx.layout.instance(&fork.id);
            clear(machine.vm.as_ref(), &dir, &fork.id).await;
            leave(ctx, machine.seat).await;
        }
        Err(error) => debug!(fork = %fork.id, why = %chain(&error), "it was not made"),
    }
}

/// Ends a VM and removes its directory; what cannot be removed is left for the next start.
async fn clear(vm: &dyn Vm, dir: &InstanceDir, id: &InstanceId) {
    match vm.kill().await {
        Ok(()) => remove(dir, id).await,
        Err(error) => warn!(fork = %id, why = %chain(&error), "a warm VM cannot be ended"),
    }
}

async fn remove(dir: &InstanceDir, id: &InstanceId) {
    let root = dir.root().to_owned();
    if let Err(error) = blocking_op(move || disk::remove_tree(&root)).await {
        warn!(fork = %id, why = %chain(&error), "files of a warm fork are left for the next start");
    }
}

async fn leave(ctx: &Context, seat: Option<Box<Seat>>) {
    if let Some(seat) = seat {
        slot::give_back(ctx, seat.lease.slot.0).await;
    }
}
