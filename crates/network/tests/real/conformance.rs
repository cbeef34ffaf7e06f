//! The real network passes the suite.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use network::conformance::{BUSY_PORT, Scenario, Subject};
use network::linux::LinuxNetwork;
use network::{Held, Lease, Network, NetworkError, Opened, Pool, Slot};

use crate::guest::Guest;
use crate::lab::{Lab, lab};

struct Real {
    lab: Lab,
    now: Mutex<Option<Arc<LinuxNetwork>>>,
    guests: Mutex<HashMap<Slot, Guest>>,
}

#[async_trait]
impl Subject for Real {
    async fn open(
        &self,
        pool: Pool,
        held: Vec<Held>,
    ) -> Result<(Arc<dyn Network>, Opened), NetworkError> {
        let mut config = self.lab.config(1);
        config.pool = Some(pool);
        let (network, opened) = LinuxNetwork::open(config, held).await?;
        *self.now.lock().unwrap() = Some(Arc::clone(&network));
        Ok((network, opened))
    }

    async fn kill(&self, network: Arc<dyn Network>) {
        drop(network);
        let now = self.now.lock().unwrap().take();
        now.unwrap().close().await;
    }

    async fn passes(&self, from: &Lease, to: Ipv4Addr) -> bool {
        let leases = self.now.lock().unwrap().as_ref().unwrap().leases();
        let mut guests = self.guests.lock().unwrap();
        for (owner, lease) in leases {
            if [from.address, to].contains(&lease.address) {
                guests.entry(lease.slot).or_insert_with(|| {
                    let guest = Guest::boot(&lease);
                    guest.serve("0.0.0.0:80", &owner);
                    guest
                });
            }
        }
        guests[&from.slot].reaches(&format!("{to}:80"))
    }
}

fn conforms(scenario: Scenario) {
    lab(move |lab| async move {
        lab.host.serve(&format!("0.0.0.0:{BUSY_PORT}"), "busy");
        let real = Real {
            lab,
            now: Mutex::new(None),
            guests: Mutex::new(HashMap::new()),
        };
        scenario.run(&real).await;
    });
}

macro_rules! scenarios {
    ($($name:ident: $scenario:ident,)*) => {
        $(#[test]
        fn $name() {
            conforms(Scenario::$scenario);
        })*

        /// One that was added to the suite is run here too.
        #[test]
        fn every_scenario_is_run() {
            assert_eq!(Scenario::ALL.to_vec(), vec![$(Scenario::$scenario),*]);
        }
    };
}

scenarios! {
    real_leases_differ: LeasesDiffer,
    real_exhausted: Exhausted,
    real_unknown_slot: UnknownSlot,
    real_port_conflict: PortConflict,
    real_busy_port: BusyPort,
    real_refused_policy_changes_nothing: RefusedPolicyChangesNothing,
    real_adopt: Adopt,
    real_lost: Lost,
    real_groups: Groups,
    real_egress: Egress,
}
