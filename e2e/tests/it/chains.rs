//! Long lives: sleeping and waking many times, forks of forks of forks.

use e2e::{Daemon, share};
use serde_json::json;

#[tokio::test]
async fn ten_times_asleep_and_awake_with_all_data_there() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let id = daemon.boot("a").await;
    for round in 1..=10_u64 {
        assert_eq!(daemon.count("a").await, round, "memory");
        let line = format!(
            "echo {round} >> /srv/log; \
             dd if=/dev/urandom of=/srv/data-{round} bs=64k count=4 2>&1; \
             dd if=/dev/urandom of=/dev/shm/data-{round} bs=64k count=8 2>&1; \
             sha256sum /srv/data-* /dev/shm/data-* > /dev/shm/sums; cp /dev/shm/sums /srv/sums"
        );
        daemon.sh("a", &line).await;
        daemon.act("a", "standby").await.expect(200);
        assert_eq!(daemon.images(&id).len(), 1);
        daemon.act("a", "restore").await.expect(200);
        let check = "echo 3 > /proc/sys/vm/drop_caches; sha256sum -c /dev/shm/sums > /dev/null && cmp /dev/shm/sums /srv/sums && wc -l < /srv/log";
        assert_eq!(
            daemon.sh("a", check).await,
            round.to_string(),
            "disk and memory"
        );
    }
    daemon.expect_tidy().await;
    // The disk is what it should be without the memory too.
    daemon.act("a", "stop").await.expect(200);
    daemon.act("a", "start").await.expect(200);
    daemon.wait_for("a", "Running").await;
    daemon
        .sh(
            "a",
            "grep /srv/ /srv/sums > /srv/on-disk; sha256sum -c /srv/on-disk > /dev/null",
        )
        .await;
    assert_eq!(daemon.sh("a", "wc -l < /srv/log").await, "10");
}

#[tokio::test]
async fn a_fork_asleep_and_awake_many_times_keeps_what_it_changed() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.template("a").await;
    let fork = daemon.sprout("a", "f").await;
    for round in 2..8_u64 {
        assert_eq!(daemon.count("f").await, round);
        let line = format!(
            "dd if=/dev/urandom of=/dev/shm/x{round} bs=1M count=3 2>&1; sha256sum /dev/shm/x* > /srv/sums; sync"
        );
        daemon.sh("f", &line).await;
        daemon.act("f", "standby").await.expect(200);
        let shown = daemon.show("f").await;
        assert_ne!(shown["fork_of_template"], json!(null), "still a fork");
        daemon.act("f", "restore").await.expect(200);
        daemon.sh("f", "sha256sum -c /srv/sums > /dev/null").await;
    }
    let layers = std::fs::read_dir(daemon.image(&fork)).map(Iterator::count);
    assert!(
        layers.is_ok_and(|count| count < 24),
        "the chain of layers has an end"
    );
    assert_eq!(daemon.sprout("a", "late").await.len(), 24);
    assert_eq!(daemon.count("late").await, 2);
}

#[tokio::test]
async fn forks_of_forks_each_from_where_its_source_stood() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.template("g-0").await;
    for depth in 1..=4_u64 {
        let (source, name) = (format!("g-{}", depth - 1), format!("g-{depth}"));
        daemon.fork(&source, share(&name)).await.expect(201);
        assert_eq!(daemon.sh(&name, "hostname").await, name);
        assert_eq!(daemon.count(&name).await, depth + 1);
        daemon
            .sh(
                &name,
                &format!("echo {depth} >> /srv/depth; echo {depth} >> /dev/shm/depth"),
            )
            .await;
        daemon.act(&name, "standby").await.expect(200);
        daemon.act(&name, "promote-template").await.expect(200);
    }
    let leaf = daemon.sprout("g-4", "leaf").await;
    let expected = "1\n2\n3\n4";
    assert_eq!(daemon.sh(&leaf, "cat /srv/depth").await, expected);
    assert_eq!(daemon.sh(&leaf, "cat /dev/shm/depth").await, expected);
    let middle = daemon.sprout("g-2", "middle").await;
    assert_eq!(daemon.sh(&middle, "cat /srv/depth").await, "1\n2");
    assert_eq!(daemon.count(&middle).await, 4);

    // From the leaves to the root, since each template is locked by the next.
    daemon.delete("g-2").await.conflict();
    for name in ["leaf", "middle", "g-4", "g-3", "g-2", "g-1", "g-0"] {
        daemon.delete(name).await.expect(204);
    }
    daemon.expect_tidy().await;
}
