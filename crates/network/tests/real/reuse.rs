//! A slot's next owner has nothing of the one before.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use network::{Bandwidth, Network, NetworkError, Policy, Protocol, Publish, Traffic};

use crate::guest::Guest;
use crate::lab::{WEB, lab, take, until};

#[test]
fn real_a_slot_used_a_hundred_times_never_answers_for_an_earlier_owner() {
    lab(|lab| async move {
        let mut config = lab.config(1);
        config.pool = Some("10.99.0.0/29".parse().unwrap());
        let (network, _) = lab.open_with(config, vec![]).await;
        // The pool has five; one remains.
        for _ in 0..4 {
            take(&network, "other", Policy::default()).await;
        }
        let mut addresses = std::collections::BTreeSet::new();
        for n in 0..100 {
            let owner = format!("owner-{n}");
            let lease = take(&network, &owner, Policy::default()).await;
            assert_eq!(
                network.traffic(lease.slot).await.unwrap(),
                Traffic::default()
            );
            let at = format!("{}:80", lease.address);
            let guest = Guest::boot(&lease);
            // Nobody listens yet: no answer of an earlier owner.
            let error = lab.host.ask(&at).unwrap_err();
            assert_eq!(
                error.kind(),
                std::io::ErrorKind::ConnectionRefused,
                "{owner}"
            );
            guest.serve("0.0.0.0:80", &owner);
            let answer = lab.host.ask(&at).unwrap();
            assert!(
                answer.starts_with(&format!("{owner} ")),
                "{owner}: {answer}"
            );
            addresses.insert(lease.address);
            drop(guest);
            network.give_back(lease.slot).await.unwrap();
        }
        assert_eq!(addresses.len(), 1);
    });
}

#[test]
fn real_an_open_connection_does_not_reach_the_next_owner() {
    lab(|lab| async move {
        let mut config = lab.config(1);
        config.pool = Some("10.99.0.0/29".parse().unwrap());
        let (network, _) = lab.open_with(config, vec![]).await;
        for _ in 0..4 {
            take(&network, "other", Policy::default()).await;
        }
        let lease = take(&network, "first", Policy::default()).await;
        let guest = Guest::boot(&lease);
        let listener = guest.run(|| TcpListener::bind("0.0.0.0:80").unwrap());
        let mut client = lab
            .host
            .run(|| TcpStream::connect((lease.address, 80)).unwrap());
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"1").unwrap();
        let mut byte = [0];
        server.read_exact(&mut byte).unwrap();
        // The same guest, with its connection, comes back under the same address as somebody else's: as a fork does.
        let frozen = guest.unplug();
        network.give_back(lease.slot).await.unwrap();
        let again = take(&network, "second", Policy::default()).await;
        assert_eq!(again.address, lease.address);
        let _thawed = frozen.plug(&again);
        client
            .set_read_timeout(Some(crate::place::PATIENCE))
            .unwrap();
        server
            .set_read_timeout(Some(crate::place::PATIENCE))
            .unwrap();
        let _ = client.write_all(b"2");
        assert!(
            server.read_exact(&mut byte).is_err(),
            "the old connection reached the new owner"
        );
        // The client learns it at once.
        let error = client.read_exact(&mut byte).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    });
}

#[test]
fn real_limits_ports_and_answers_of_names_end_with_the_lease() {
    lab(|lab| async move {
        let mut config = lab.config(1);
        config.pool = Some("10.99.0.0/29".parse().unwrap());
        let (network, _) = lab.open_with(config, vec![]).await;
        for _ in 0..4 {
            take(&network, "other", Policy::default()).await;
        }
        let policy = Policy {
            bandwidth: Bandwidth {
                upload: Some(1_000_000),
                download: Some(1_000_000),
            },
            publish: vec![Publish {
                protocol: Protocol::Tcp,
                host_ip: None,
                host_port: 8080,
                guest_port: 80,
            }],
            ..Policy::default()
        };
        let lease = take(&network, "first", policy).await;
        let qdisc =
            || crate::place::Place::of(&lease.netns).run(|| crate::place::tool("tc", "qdisc show"));
        assert_eq!(qdisc().matches("tbf").count(), 2);
        let guest = Guest::boot(&lease);
        assert!(guest.reaches(&format!("{WEB}:80")));
        drop(guest);
        network.give_back(lease.slot).await.unwrap();
        until("the slot is clean", || network.usage().ready == 1).await;
        assert_eq!(qdisc().matches("tbf").count(), 0);
        let tracked = crate::place::tool("nft", "list ruleset");
        assert!(!tracked.contains("8080"), "{tracked}");
    });
}

#[test]
fn real_an_exhausted_pool_says_so_before_anything_is_made() {
    lab(|lab| async move {
        let mut config = lab.config(1);
        config.pool = Some("10.99.0.0/29".parse().unwrap());
        config.ready = 0;
        let (network, _) = lab.open_with(config, vec![]).await;
        for _ in 0..5 {
            take(&network, "owner", Policy::default()).await;
        }
        let before = lab.objects();
        let error = network
            .take("one more", Policy::default())
            .await
            .unwrap_err();
        assert!(
            matches!(error, NetworkError::Exhausted { capacity: 5, .. }),
            "{error}"
        );
        assert_eq!(lab.objects(), before);
    });
}
