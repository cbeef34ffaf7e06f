//! What a daemon leaves, finds, and takes over.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use network::linux::{LinuxNetwork, Prospect, leftovers, prospect, remove_all};
use network::plan::Names;
use network::{Config, Held, LeftoverKind, Network, NetworkError, Policy};

use crate::guest::Guest;
use crate::lab::{WEB, lab, take, until};
use crate::place::tool;

#[test]
fn real_a_storm_leaves_nothing_behind() {
    lab(|lab| async move {
        let before = lab.objects();
        let network = lab.open().await;
        let mut taking = Vec::new();
        for n in 0..16 {
            let network = network.clone();
            taking.push(tokio::spawn(async move {
                network
                    .take(&format!("fork-{n}"), Policy::default())
                    .await
                    .unwrap()
            }));
        }
        let mut leases = Vec::new();
        for one in taking {
            leases.push(one.await.unwrap());
        }
        assert_eq!(network.usage().in_use, 16);
        for lease in &leases {
            network.give_back(lease.slot).await.unwrap();
        }
        until("the rest is removed", || network.usage().ready == 2).await;
        assert_eq!(network.leftovers().await.unwrap(), vec![]);
        network.close().await;
        remove_all(&Names::new(&lab.config(1))).unwrap();
        assert_eq!(lab.objects(), before);
    });
}

#[test]
fn real_rules_of_others_are_left_alone() {
    lab(|lab| async move {
        for line in [
            "add table inet theirs",
            "add chain inet theirs forward { type filter hook forward priority 0; policy accept; }",
            "add rule inet theirs forward tcp dport 25 drop",
        ] {
            tool("nft", line);
        }
        let picture = || tool("nft", "list table inet theirs");
        let before = (picture(), tool("nft", "list ruleset"));
        assert!(before.0.contains("tcp dport 25 drop"), "{}", before.0);
        let network = lab.open().await;
        let lease = take(&network, "web", Policy::default()).await;
        assert_ne!(
            tool("nft", "list ruleset"),
            before.1,
            "it has rules of its own"
        );
        assert_eq!(picture(), before.0);
        network.give_back(lease.slot).await.unwrap();
        network.close().await;
        remove_all(&Names::new(&lab.config(1))).unwrap();
        assert_eq!((picture(), tool("nft", "list ruleset")), before);
    });
}

#[test]
fn real_a_restarted_daemon_takes_over_what_is_held_and_removes_the_rest() {
    lab(|lab| async move {
        let network = lab.open().await;
        let policy = Policy {
            group: Some("blue".into()),
            ..Policy::default()
        };
        let kept = take(&network, "kept", policy.clone()).await;
        let dropped = take(&network, "dropped", Policy::default()).await;
        let guest = Guest::boot(&kept);
        guest.serve("0.0.0.0:80", "kept");
        assert!(lab.host.reaches(&format!("{}:80", kept.address)));
        let counted = network.traffic(kept.slot).await.unwrap();
        network.close().await;
        let held = |slot| Held {
            owner: "kept".into(),
            slot,
            policy: policy.clone(),
        };
        let vanished = network::Slot(77);
        let (network, opened) = lab
            .open_with(lab.config(1), vec![held(kept.slot), held(vanished)])
            .await;
        assert_eq!(opened.adopted, vec![kept.slot]);
        assert_eq!(opened.remade, vec![vanished]);
        assert!(opened.lost.is_empty());
        let removed = |name: &str| opened.removed.iter().any(|object| object.name == name);
        assert!(
            removed(dropped.netns.to_str().unwrap()),
            "{:?}",
            opened.removed
        );
        assert!(lab.host.reaches(&format!("{}:80", kept.address)));
        assert!(guest.reaches(&format!("{WEB}:80")));
        assert!(network.traffic(kept.slot).await.unwrap().rx_bytes > counted.rx_bytes);
        assert_eq!(network.owner_of(kept.address).unwrap().owner, "kept");
        assert_eq!(network.leftovers().await.unwrap(), vec![]);
    });
}

#[test]
fn real_a_machine_that_no_record_names_keeps_its_namespace_while_it_runs() {
    lab(|lab| async move {
        let network = lab.open().await;
        let lease = take(&network, "unreadable", Policy::default()).await;
        let guest = Guest::boot(&lease);
        guest.serve("0.0.0.0:80", "unreadable");
        network.close().await;
        // Nobody knows what it may do, so that it may do nothing.
        let (network, opened) = lab.open_with(lab.config(1), vec![]).await;
        assert_eq!(opened.astray, vec![lease.slot]);
        assert!(netns_exists(&lease));
        assert!(!lab.host.reaches(&format!("{}:80", lease.address)));
        assert!(!guest.reaches(&format!("{WEB}:80")));
        let other = take(&network, "other", Policy::default()).await;
        assert_ne!(other.slot, lease.slot);
        network.close().await;
        let held = Held {
            owner: "readable".into(),
            slot: lease.slot,
            policy: Policy::default(),
        };
        let (network, opened) = lab.open_with(lab.config(1), vec![held]).await;
        assert_eq!(opened.adopted, vec![lease.slot]);
        assert!(lab.host.reaches(&format!("{}:80", lease.address)));
        network.close().await;
        let (network, _) = lab.open_with(lab.config(1), vec![]).await;
        drop(guest);
        until("what is left of it is removed", || !netns_exists(&lease)).await;
        assert_eq!(network.leftovers().await.unwrap(), vec![]);
    });
}

fn netns_exists(lease: &network::Lease) -> bool {
    lease.netns.exists()
}

/// Environment variable that makes [`real_the_daemon_that_is_killed`] one.
const VICTIM: &str = "COPPICE_TEST_VICTIM";

/// Takes and gives back slots until it is killed.
#[test]
#[ignore = "it is run by the test that kills it"]
fn real_the_daemon_that_is_killed() {
    // Without the word nobody wants a victim: all ignored tests were asked for.
    let Some(root) = std::env::var_os(VICTIM) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let config = network::Config::new("00000001".parse().unwrap(), root.into());
        let (network, _) = LinuxNetwork::open(config, vec![]).await.unwrap();
        let mut round = 0;
        loop {
            let mut leases = Vec::new();
            for n in 0..6 {
                let owner = format!("{round}-{n}");
                leases.push(network.take(&owner, Policy::default()).await.unwrap());
            }
            println!("round {round}");
            round += 1;
            for lease in leases {
                network.give_back(lease.slot).await.unwrap();
            }
        }
    });
}

#[test]
fn real_a_kill_at_any_moment_leaves_what_the_next_one_cleans() {
    lab(|lab| async move {
        let before = lab.objects();
        for round in 0..4 {
            let mut victim = Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "survival::real_the_daemon_that_is_killed",
                    "--ignored",
                    "--nocapture",
                ])
                .env(VICTIM, lab.root())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let wanted = format!("round {round}");
            let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
            assert!(
                lines.any(|line| line.unwrap().ends_with(&wanted)),
                "the victim died early"
            );
            victim.kill().unwrap();
            victim.wait().unwrap();
            let dead = leftovers(&lab.root()).unwrap();
            assert!(
                dead.iter().any(|object| object.kind == LeftoverKind::Link),
                "{dead:?}"
            );
            let network = lab.open().await;
            let lease = take(&network, "after", Policy::default()).await;
            let guest = Guest::boot(&lease);
            assert!(guest.reaches(&format!("{WEB}:80")));
            until("slots are ready", || network.usage().ready >= 2).await;
            assert_eq!(network.leftovers().await.unwrap(), vec![]);
            network.close().await;
        }
        remove_all(&Names::new(&lab.config(1))).unwrap();
        assert_eq!(lab.objects(), before);
    });
}

#[test]
fn real_two_daemons_do_not_disturb_each_other() {
    lab(|lab| async move {
        let network = lab.open().await;
        let (other, _) = lab.open_with(lab.config(2), vec![]).await;
        assert_ne!(network.pool(), other.pool());
        let twice = LinuxNetwork::open(lab.config(1), vec![]).await;
        assert!(matches!(twice, Err(NetworkError::MarkInUse { .. })));
        let (one, two) = (
            take(&network, "one", Policy::default()).await,
            take(&other, "two", Policy::default()).await,
        );
        let (first, second) = (Guest::boot(&one), Guest::boot(&two));
        second.serve("0.0.0.0:80", "two");
        assert!(!first.reaches(&format!("{}:80", two.address)));
        network.close().await;
        assert!(
            leftovers(&lab.root())
                .unwrap()
                .iter()
                .all(|object| object.mark == "00000001")
        );
        remove_all(&Names::new(&lab.config(1))).unwrap();
        assert!(lab.host.reaches(&format!("{}:80", two.address)));
        assert!(second.reaches(&format!("{WEB}:80")));
    });
}

#[test]
fn real_a_pool_in_use_is_refused_and_a_default_in_use_is_passed_over() {
    lab(|lab| async move {
        lab.host.ip("route add 10.208.1.0/24 via 203.0.113.2");
        lab.host.ip("addr add 10.209.0.7/16 dev wan");
        let network = lab.open().await;
        assert_eq!(network.pool().to_string(), "10.210.0.0/16");
        let looked_at = |config: &Config| prospect(Some(&Names::new(config)), config.pool);
        let own = looked_at(&lab.config(1)).unwrap();
        assert_eq!(own, Prospect::Claimed(network.pool()));
        let free = looked_at(&lab.config(2)).unwrap();
        assert_eq!(free, Prospect::Free("10.211.0.0/16".parse().unwrap()));
        let mut config = lab.config(2);
        config.pool = Some("10.208.0.0/16".parse().unwrap());
        let error = LinuxNetwork::open(config.clone(), vec![])
            .await
            .err()
            .unwrap();
        assert!(error.to_string().contains("10.208.1.0/24"), "{error}");
        let foreseen = looked_at(&config).unwrap_err();
        assert_eq!(foreseen.to_string(), error.to_string());
        // What is one's own is not in one's way.
        let mut narrower = lab.config(1);
        narrower.pool = Some("10.210.4.0/24".parse().unwrap());
        let wanted = narrower.pool.unwrap();
        assert_eq!(looked_at(&narrower).unwrap(), Prospect::Free(wanted));
        config.pool = Some("10.210.4.0/24".parse().unwrap());
        let error = LinuxNetwork::open(config, vec![]).await.err().unwrap();
        assert!(matches!(error, NetworkError::PoolClash { .. }), "{error}");
        let pool = network.pool();
        network.close().await;
        assert_eq!(
            lab.open().await.pool(),
            pool,
            "the pool stays over a restart"
        );
    });
}

#[test]
fn real_flushed_rules_come_back_with_the_next_change() {
    lab(|lab| async move {
        let network = lab.open().await;
        let lease = take(&network, "guest", Policy::default()).await;
        crate::place::tool("nft", "flush ruleset");
        take(&network, "other", Policy::default()).await;
        let guest = Guest::boot(&lease);
        guest.serve("0.0.0.0:80", "guest");
        assert!(guest.reaches(&format!("{WEB}:80")));
        assert!(lab.host.reaches(&format!("{}:80", lease.address)));
    });
}
