//! The place of a running machine on the network.
//!
//! A machine has a slot exactly as long as it has a VMM: taken before the VMM starts, given
//! back after it has ended. What a crash leaves in between is seen at the next
//! start, which gives back the slots of machines without a VMM.

use std::sync::Arc;

use async_trait::async_trait;
use hypervisor::Nic;
use model::network::{Policy, Publish};
use model::{InstanceId, InstanceRecord, Intent, NetworkLease};
use network::{Held, Lease, Network, NetworkError, Slot};
use tracing::warn;

use super::actor::Actor;
use super::context::Context;
use super::{OpError, chain};

/// The network of this host, or why it has none.
pub enum Networking {
    /// Instances can be connected.
    Ready(Arc<dyn Network>),
    /// They cannot.
    Missing(String),
}

impl Networking {
    /// Whether there is one; what the host lacks otherwise.
    pub(crate) fn available(&self) -> Result<(), &str> {
        match self {
            Self::Ready(_) => Ok(()),
            Self::Missing(why) => Err(why),
        }
    }

    /// The network.
    ///
    /// # Errors
    /// What this host lacks.
    pub(crate) fn get(&self) -> Result<&Arc<dyn Network>, OpError> {
        match self {
            Self::Ready(network) => Ok(network),
            Self::Missing(why) => Err(OpError::HostNotReady(why.clone())),
        }
    }
}

/// Ports of the host that lead to ports of machines.
#[async_trait]
pub trait HostPorts: Send + Sync {
    /// Whose a port of the host is, if it is not for instances: an ingress has it, for example.
    async fn claimant(&self, port: &Publish) -> Option<String>;

    /// Lets `ports` lead to the instance from now on, instead of those before.
    ///
    /// # Errors
    /// [`OpError::PortInUse`]; those before stay.
    async fn open(&self, id: &InstanceId, ports: &[Publish]) -> Result<(), OpError>;

    /// Lets none lead to it any more.
    async fn close(&self, id: &InstanceId);
}

/// The slots that records say are in use.
pub fn held<'a>(records: impl IntoIterator<Item = &'a InstanceRecord>) -> Vec<Held> {
    let leased = records.into_iter().filter_map(|record| {
        let lease = record.lease?;
        Some(Held {
            owner: record.id.to_string(),
            slot: Slot(lease.slot),
            policy: record.spec.network.policy_in(&record.spec.tags),
        })
    });
    leased.collect()
}

/// The card that a VMM gets in a slot.
pub(super) fn nic(lease: &Lease) -> Nic {
    Nic {
        netns: lease.netns.clone(),
        tap: lease.tap.clone(),
        mac: network::guest::MAC,
    }
}

pub(super) fn recorded(lease: &Lease) -> NetworkLease {
    NetworkLease {
        slot: lease.slot.0,
        address: lease.address,
        mtu: lease.mtu,
    }
}

/// Gives a slot back where nobody waits for the outcome: what remains is cleaned at the next start.
pub(super) async fn give_back(ctx: &Context, slot: u32) {
    let Ok(network) = ctx.network.get() else {
        return;
    };
    if let Err(error) = network.give_back(Slot(slot)).await {
        warn!(slot, why = %chain(&error), "a network slot could not be given back");
    }
}

impl Actor {
    /// Takes a slot for the machine that is about to start, and records it. None if it is not
    /// to be connected.
    pub(super) async fn take_slot(&mut self) -> Result<Option<Nic>, OpError> {
        if !self.record.spec.network.enabled {
            return Ok(None);
        }
        // One that a failed attempt has left.
        self.release_slot().await;
        let policy = self.policy();
        self.refuse_claimed(&policy.publish, &[]).await?;
        let lease = match self.lease(policy).await? {
            Ok(lease) => lease,
            Err(error) => return Err(self.whose(error).await),
        };
        self.have_slot(recorded(&lease)).await?;
        self.open_ports().await?;
        Ok(Some(nic(&lease)))
    }

    /// Warm forks are nobody's yet: in a full pool they give way to a machine that was asked for.
    async fn lease(&self, policy: Policy) -> Result<Result<Lease, NetworkError>, OpError> {
        let network = self.ctx.network.get()?;
        let taken = network.take(self.id.as_str(), policy.clone()).await;
        if let (Err(NetworkError::Exhausted { .. }), Some(all)) = (&taken, self.ctx.everybody.get())
        {
            all.yield_slots().await;
            return Ok(network.take(self.id.as_str(), policy).await);
        }
        Ok(taken)
    }

    /// Notes the slot, and records it unless this is a fork on its way: that is recorded when it
    /// is announced, and what a crash leaves of it before is removed, whatever its slot was.
    pub(super) async fn have_slot(&mut self, lease: NetworkLease) -> Result<(), OpError> {
        self.record.lease = Some(lease);
        if self.record.intent == Some(Intent::BecomeFork) {
            return Ok(());
        }
        let saved = self.save(|_| Ok(())).await;
        if saved.is_err() {
            self.record.lease = None;
            give_back(&self.ctx, lease.slot).await;
        }
        saved
    }

    /// Gives the slot back, after the VMM has ended.
    pub(super) async fn release_slot(&mut self) {
        let Some(lease) = self.record.lease else {
            return;
        };
        self.ctx.ports.close(&self.id).await;
        // A record that could not be corrected may name a slot that is another's by now.
        let network = self.ctx.network.get().ok();
        let holder = network.and_then(|network| network.owner_of(lease.address));
        if holder.is_some_and(|held| held.owner == self.id.as_str() && held.slot.0 == lease.slot) {
            give_back(&self.ctx, lease.slot).await;
        }
        self.record.lease = None;
        if let Err(error) = self.save(|_| Ok(())).await {
            warn!(instance = %self.id, why = %chain(&error), "cannot record that the network slot is free");
        }
    }

    /// Gives slots back that an actor took and could not record before it panicked.
    pub(super) async fn release_lost_slots(&self) {
        let Ok(network) = self.ctx.network.get() else {
            return;
        };
        let recorded = self.record.lease.map(|lease| lease.slot);
        for (owner, lease) in network.leases() {
            if owner == self.id.as_str() && recorded != Some(lease.slot.0) {
                give_back(&self.ctx, lease.slot.0).await;
            }
        }
    }

    /// Refuses ports that are not among `before` and that the edge has for something else.
    pub(super) async fn refuse_claimed(
        &self,
        ports: &[Publish],
        before: &[Publish],
    ) -> Result<(), OpError> {
        for port in ports.iter().filter(|port| !before.contains(port)) {
            if let Some(by) = self.ctx.ports.claimant(port).await {
                return Err(OpError::PortInUse {
                    port: port.host_port,
                    protocol: port.protocol,
                    by,
                });
            }
        }
        Ok(())
    }

    /// The network knows who has a port by id; people know instances by name.
    pub(super) async fn whose(&self, error: NetworkError) -> OpError {
        let NetworkError::PortInUse { protocol, port, by } = error else {
            return error.into();
        };
        let owner = match by.parse::<InstanceId>() {
            Ok(id) => self
                .ctx
                .store
                .run(move |store| store.instance(&id))
                .await
                .ok(),
            Err(_) => None,
        };
        OpError::PortInUse {
            port,
            protocol,
            by: owner.map_or(by, |owner| format!("instance {}", owner.record.name)),
        }
    }

    /// Lets published ports lead to the machine.
    pub(super) async fn open_ports(&self) -> Result<(), OpError> {
        let ports = &self.record.spec.network.policy.publish;
        if ports.is_empty() {
            return Ok(());
        }
        self.ctx.ports.open(&self.id, ports).await
    }

    /// What the machine may do on the network.
    pub(super) fn policy(&self) -> Policy {
        let spec = &self.record.spec;
        spec.network.policy_in(&spec.tags)
    }
}
