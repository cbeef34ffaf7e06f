//! Records that say what is no longer so of the network.
//!
//! A slot of another pool, or one that could not be taken over, is not the machine's any more, and
//! may soon be another's: a record that went on naming it would show a wrong address, and give
//! back a stranger's slot when the machine ends.

use std::sync::Arc;

use model::{InstanceRecord, NetworkLease};
use network::{Lease, Network, Slot};
use tracing::warn;

use crate::instances::chain;
use crate::store::Store;

/// Brings `records` in step with a network that was just opened for them: leases that it does not
/// know are forgotten, those whose slot has another address now are given back. Machines that run
/// in such a place are without a network until they are started again.
pub(crate) async fn forget_lost_leases(
    store: &Arc<Store>,
    network: &dyn Network,
    records: &mut [InstanceRecord],
) {
    let leases = network.leases();
    for record in records {
        let Some(recorded) = record.lease else {
            continue;
        };
        let own = leases
            .iter()
            .find(|(owner, lease)| *owner == record.id.as_str() && lease.slot.0 == recorded.slot);
        match own {
            Some((_, lease)) if is_same(lease, recorded) => continue,
            Some((_, lease)) => give_back(network, lease.slot).await,
            None => {}
        }
        warn!(instance = %record.id, address = %recorded.address, "it has lost its place on the network");
        record.lease = None;
        let id = record.id.clone();
        let forget = move |store: &Store| {
            store.update(&id, |record| {
                record.lease = None;
                Ok(())
            })
        };
        if let Err(error) = store.run(forget).await {
            warn!(instance = %record.id, why = %chain(&error), "the record names an address that is not its own");
        }
    }
}

fn is_same(lease: &Lease, recorded: NetworkLease) -> bool {
    lease.address == recorded.address
}

async fn give_back(network: &dyn Network, slot: Slot) {
    if let Err(error) = network.give_back(slot).await {
        warn!(%slot, why = %chain(&error), "a network slot could not be given back");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instances::held;
    use crate::store::tests::{record, store};
    use network::fake::{FakeHost, FakeNetwork};
    use network::{Config, Pool};

    fn open(host: &FakeHost, pool: &str, records: &[InstanceRecord]) -> Arc<FakeNetwork> {
        let mut config = Config::new("00000001".parse().unwrap(), "/run/coppice".into());
        config.pool = Some(pool.parse::<Pool>().unwrap());
        FakeNetwork::open(host, &config, &held(records)).unwrap().0
    }

    #[tokio::test]
    async fn after_a_change_of_the_pool_no_record_names_a_slot_of_the_old_one() {
        let (_dir, store) = store();
        let store = Arc::new(store);
        let host = FakeHost::new();
        let network = open(&host, "10.9.8.0/28", &[]);
        let mut records = Vec::new();
        for (number, name) in [(1, "a"), (2, "b")] {
            let mut one = record(number, name, None);
            let lease = network.take(one.id.as_str(), Default::default()).await;
            let lease = lease.unwrap();
            one.lease = Some(NetworkLease {
                slot: lease.slot.0,
                address: lease.address,
                mtu: lease.mtu,
            });
            store.insert(&one).unwrap();
            records.push(one);
        }
        drop(network);
        let same = open(&host, "10.9.8.0/28", &records);
        let before = records.clone();
        forget_lost_leases(&store, same.as_ref(), &mut records).await;
        assert_eq!(records, before);
        drop(same);
        // Slot numbers that both pools have, addresses that only one has.
        let other = open(&host, "10.9.9.0/29", &records);
        forget_lost_leases(&store, other.as_ref(), &mut records).await;
        assert_eq!(other.usage().in_use, 0);
        for record in &records {
            assert_eq!(record.lease, None);
            let kept = store.instance(&record.id).unwrap().record;
            assert_eq!(kept.lease, None);
        }
    }
}
