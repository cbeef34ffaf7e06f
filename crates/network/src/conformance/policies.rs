//! Scenarios of policies.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::{BUSY_PORT, PRIVATE, Subject, WEB, small};
use crate::{Egress, NetworkError, Policy, Protocol, Publish};

fn publishing(host_port: u16) -> Policy {
    Policy {
        publish: vec![Publish {
            protocol: Protocol::Tcp,
            host_ip: None,
            host_port,
            guest_port: 80,
        }],
        ..Policy::default()
    }
}

fn grouped(name: &str) -> Policy {
    Policy {
        group: Some(name.to_owned()),
        ..Policy::default()
    }
}

fn with(egress: Egress) -> Policy {
    Policy {
        egress,
        ..Policy::default()
    }
}

pub(super) async fn port_conflict(subject: &dyn Subject) {
    let network = small(subject).await;
    let first = network.take("first", publishing(8080)).await.unwrap();
    let refused = network.take("second", publishing(8080)).await;
    assert!(
        matches!(&refused, Err(NetworkError::PortInUse { by, .. }) if by == "first"),
        "{refused:?}"
    );
    let mut local = publishing(8080);
    local.publish[0].host_ip = Some(Ipv4Addr::LOCALHOST);
    let refused = network.take("second", local.clone()).await;
    assert!(
        matches!(&refused, Err(NetworkError::PortInUse { by, .. }) if by == "first"),
        "{refused:?}"
    );
    assert_eq!(network.usage().in_use, 1);
    network.give_back(first.slot).await.unwrap();
    network.take("second", local).await.unwrap();
    let refused = network.take("third", publishing(8080)).await;
    assert!(
        matches!(&refused, Err(NetworkError::PortInUse { by, .. }) if by == "second"),
        "{refused:?}"
    );
}

pub(super) async fn busy_port(subject: &dyn Subject) {
    let network = small(subject).await;
    let refused = network.take("owner", publishing(BUSY_PORT)).await;
    assert!(
        matches!(refused, Err(NetworkError::PortInUse { .. })),
        "{refused:?}"
    );
    assert_eq!(network.usage().in_use, 0);
}

pub(super) async fn refused(subject: &dyn Subject) {
    let network = small(subject).await;
    network.take("first", publishing(8080)).await.unwrap();
    let lease = network.take("second", grouped("blue")).await.unwrap();
    for bad in [
        publishing(8080),
        publishing(BUSY_PORT),
        publishing(0),
        grouped(""),
    ] {
        assert!(network.set_policy(lease.slot, bad).await.is_err());
        assert_eq!(
            network.owner_of(lease.address).unwrap().policy,
            grouped("blue")
        );
    }
    assert!(network.take("third", publishing(0)).await.is_err());
    assert_eq!(network.usage().in_use, 2);
}

pub(super) async fn groups(subject: &dyn Subject) {
    let network = small(subject).await;
    let one = network.take("one", grouped("blue")).await.unwrap();
    let two = network.take("two", grouped("blue")).await.unwrap();
    let red = network.take("red", grouped("red")).await.unwrap();
    assert!(subject.passes(&one, two.address).await);
    assert!(!subject.passes(&one, red.address).await);
    network.set_policy(red.slot, grouped("blue")).await.unwrap();
    assert!(subject.passes(&one, red.address).await);
    network
        .set_policy(two.slot, Policy::default())
        .await
        .unwrap();
    assert!(!subject.passes(&one, two.address).await);
}

pub(super) async fn egress(subject: &dyn Subject) {
    let network = small(subject).await;
    let lease = network.take("owner", Policy::default()).await.unwrap();
    let list = |blocks: &[&str]| {
        with(Egress::AllowList {
            cidrs: blocks.iter().map(|block| block.parse().unwrap()).collect(),
            domains: vec!["example.com".to_owned()],
        })
    };
    let allow = Policy {
        allow: vec!["192.168.0.0/16".parse().unwrap()],
        ..with(Egress::None)
    };
    for (policy, web, private) in [
        (Policy::default(), true, false),
        (with(Egress::None), false, false),
        (allow, false, true),
        (list(&["0.0.0.0/0"]), true, false),
        (list(&["192.168.77.0/24"]), false, true),
    ] {
        network
            .set_policy(lease.slot, policy.clone())
            .await
            .unwrap();
        assert_eq!(subject.passes(&lease, WEB).await, web, "{policy:?}");
        assert_eq!(subject.passes(&lease, PRIVATE).await, private, "{policy:?}");
    }
    network.set_policy(lease.slot, list(&[])).await.unwrap();
    let ttl = Duration::from_secs(60);
    network
        .allow_resolved(lease.slot, &[WEB, PRIVATE], ttl)
        .await
        .unwrap();
    assert!(subject.passes(&lease, WEB).await);
    assert!(!subject.passes(&lease, PRIVATE).await);
    network
        .set_policy(lease.slot, with(Egress::None))
        .await
        .unwrap();
    network
        .allow_resolved(lease.slot, &[WEB], ttl)
        .await
        .unwrap();
    assert!(
        !subject.passes(&lease, WEB).await,
        "a name opens nothing without egress"
    );
}
