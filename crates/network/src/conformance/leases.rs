//! Scenarios of taking, giving back and taking over.

use std::collections::BTreeSet;

use super::{Subject, WEB, pool, small};
use crate::{Held, NetworkError, Policy, Slot, guest};

pub(super) async fn differ(subject: &dyn Subject) {
    let network = small(subject).await;
    let mut addresses = BTreeSet::new();
    for owner in ["one", "two", "three"] {
        let lease = network.take(owner, Policy::default()).await.unwrap();
        assert_eq!(network.pool().address(lease.slot), Some(lease.address));
        assert_eq!(lease.guest_address, guest::ADDRESS);
        assert_eq!(lease.mac, guest::mac());
        assert_eq!(network.owner_of(lease.address).unwrap().owner, owner);
        addresses.insert(lease.address);
    }
    assert_eq!(addresses.len(), 3);
    assert_eq!(network.usage().in_use, 3);
    let owners: BTreeSet<_> = network
        .leases()
        .into_iter()
        .map(|(owner, _)| owner)
        .collect();
    assert_eq!(owners, ["one", "two", "three"].map(str::to_owned).into());
}

pub(super) async fn exhausted(subject: &dyn Subject) {
    let network = small(subject).await;
    let mut last = None;
    for _ in 0..5 {
        last = Some(network.take("owner", Policy::default()).await.unwrap());
    }
    let refused = network.take("sixth", Policy::default()).await;
    assert!(
        matches!(refused, Err(NetworkError::Exhausted { capacity: 5, .. })),
        "{refused:?}"
    );
    let last = last.unwrap();
    network.give_back(last.slot).await.unwrap();
    assert_eq!(network.owner_of(last.address), None);
    let again = network.take("sixth", Policy::default()).await.unwrap();
    assert_eq!(again.slot, last.slot);
}

pub(super) async fn unknown(subject: &dyn Subject) {
    let network = small(subject).await;
    let lease = network.take("owner", Policy::default()).await.unwrap();
    network.give_back(lease.slot).await.unwrap();
    for slot in [lease.slot, Slot(1), Slot(4_000_000)] {
        for done in [
            network.give_back(slot).await,
            network.set_policy(slot, Policy::default()).await,
            network.traffic(slot).await.map(|_| ()),
            network
                .allow_resolved(slot, &[WEB], std::time::Duration::from_secs(60))
                .await,
        ] {
            assert!(
                matches!(done, Err(NetworkError::UnknownSlot(_))),
                "{slot}: {done:?}"
            );
        }
    }
}

pub(super) async fn adopt(subject: &dyn Subject) {
    let network = small(subject).await;
    let policy = Policy {
        group: Some("blue".to_owned()),
        ..Policy::default()
    };
    let kept = network.take("kept", policy.clone()).await.unwrap();
    let dropped = network.take("dropped", Policy::default()).await.unwrap();
    subject.kill(network).await;
    let held = Held {
        owner: "kept".to_owned(),
        slot: kept.slot,
        policy,
    };
    let (network, opened) = subject.open(pool(), vec![held.clone()]).await.unwrap();
    assert_eq!(opened.adopted, vec![kept.slot]);
    assert!(!opened.removed.is_empty());
    assert_eq!(network.owner_of(kept.address), Some(held));
    assert_eq!(network.owner_of(dropped.address), None);
    assert_eq!(network.leftovers().await.unwrap(), vec![]);
    assert!(subject.passes(&kept, WEB).await);
    let mut rest = BTreeSet::new();
    for _ in 0..4 {
        rest.insert(network.take("new", Policy::default()).await.unwrap().slot);
    }
    assert!(rest.len() == 4 && !rest.contains(&kept.slot), "{rest:?}");
}

pub(super) async fn lost(subject: &dyn Subject) {
    let held = |slot| Held {
        owner: format!("owner of {slot}"),
        slot: Slot(slot),
        policy: Policy::default(),
    };
    let claims = vec![held(3), held(3), held(700)];
    let (network, opened) = subject.open(pool(), claims).await.unwrap();
    assert_eq!(opened.remade, vec![Slot(3)]);
    assert_eq!(opened.lost, vec![Slot(3), Slot(700)]);
    assert_eq!(network.usage().in_use, 1);
}
