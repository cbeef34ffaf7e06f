//! What makes a fork its own machine (§5), each property by name.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use e2e::{Daemon, share};
use futures::future::join_all;
use serde_json::json;

/// Distinct values of one thing in eight forks, and in the machine they come from.
async fn distinct(daemon: &Daemon, forks: &[String], line: &str) -> usize {
    let values: BTreeSet<String> = join_all(forks.iter().map(|fork| daemon.sh(fork, line)))
        .await
        .into_iter()
        .collect();
    values.len()
}

#[tokio::test]
async fn rule_5_eight_forks_at_once_have_names_machine_ids_random_bytes_and_clocks_of_their_own() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let id = daemon.boot("a").await;
    let parent_machine_id = daemon.sh("a", "cat /etc/machine-id").await;
    daemon.act(&id, "standby").await.expect(200);
    let forks = daemon.sprouts("a", "f", 8).await;

    for (number, fork) in (1..).zip(&forks) {
        let name = format!("f-{number}");
        let hostname = daemon
            .sh(
                fork,
                "hostname; cat /etc/hostname; cat /proc/sys/kernel/hostname",
            )
            .await;
        assert_eq!(hostname, format!("{name}\n{name}\n{name}"));
        assert!(daemon.sh(fork, "cat /etc/hosts").await.contains(&name));
    }
    let machine_ids = distinct(&daemon, &forks, "cat /etc/machine-id").await;
    assert_eq!(machine_ids, 8);
    for fork in &forks {
        let machine_id = daemon.sh(fork, "cat /etc/machine-id").await;
        assert_ne!(machine_id, parent_machine_id);
        assert!(
            machine_id.len() == 32 && machine_id.bytes().all(|b| b.is_ascii_hexdigit()),
            "{machine_id}"
        );
    }
    for source in [
        "head -c 16 /dev/urandom | sha256sum",
        "head -c 16 /dev/random | sha256sum",
        "cat /proc/sys/kernel/random/uuid",
    ] {
        assert_eq!(distinct(&daemon, &forks, source).await, 8, "{source}");
    }
    let ids: BTreeSet<&String> = forks.iter().collect();
    assert_eq!(ids.len(), 8);
}

#[tokio::test]
async fn rule_5_wall_clock_is_now() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let id = daemon.boot("a").await;
    daemon.act(&id, "standby").await.expect(200);
    // Time passes for the world but not for the image.
    let written = now();
    e2e::until("three seconds to pass", async || {
        (now() >= written + Duration::from_secs(3)).then_some(())
    })
    .await;
    daemon.sprout("a", "f").await;
    within_two_seconds(&daemon, "f").await;
    daemon.delete("f").await.expect(204);
    daemon.act("a", "demote-template").await.expect(200);
    daemon.act("a", "restore").await.expect(200);
    within_two_seconds(&daemon, "a").await;
}

async fn within_two_seconds(daemon: &Daemon, instance: &str) {
    let before = now();
    let text = daemon.sh(instance, "date +%s").await;
    let after = now();
    let seen = Duration::from_secs(text.parse().expect("seconds"));
    assert!(
        seen + Duration::from_secs(2) >= before && seen <= after + Duration::from_secs(2),
        "{seen:?} in {instance}, {before:?} to {after:?} here"
    );
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
}

#[tokio::test]
async fn rule_5_own_disk() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.boot("a").await;
    daemon.sh("a", "echo before > /srv/shared; sync").await;
    daemon.act("a", "standby").await.expect(200);
    let forks = daemon.sprouts("a", "f", 2).await;
    let (one, two) = (&forks[0], &forks[1]);
    assert_eq!(daemon.sh(one, "cat /srv/shared").await, "before");
    daemon
        .sh(
            one,
            "echo one > /srv/shared; echo 1 > /srv/one; rm /etc/passwd; sync",
        )
        .await;
    daemon
        .sh(two, "echo two > /srv/shared; echo 2 > /srv/two; sync")
        .await;
    // The page cache of a guest could hide what its disk holds.
    for fork in [one, two] {
        daemon.sh(fork, "echo 3 > /proc/sys/vm/drop_caches").await;
    }
    assert_eq!(
        daemon
            .sh(one, "cat /srv/shared; ls /srv; ls /etc/passwd 2>&1 || true")
            .await,
        "one\none\nshared\nls: /etc/passwd: No such file or directory"
    );
    assert_eq!(
        daemon
            .sh(two, "cat /srv/shared; ls /srv; ls /etc/passwd")
            .await,
        "two\nshared\ntwo\n/etc/passwd"
    );
    let third = daemon.sprout("a", "g").await;
    assert_eq!(
        daemon.sh(&third, "cat /srv/shared; ls /srv").await,
        "before\nshared"
    );
    for name in ["f-1", "f-2", "g"] {
        daemon.delete(name).await.expect(204);
    }
    daemon.act("a", "demote-template").await.expect(200);
    daemon.act("a", "restore").await.expect(200);
    assert_eq!(
        daemon.sh("a", "cat /srv/shared; ls /srv").await,
        "before\nshared"
    );
}

#[tokio::test]
async fn rule_5_own_memory() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.template("a").await;
    let forks = daemon.sprouts("a", "f", 2).await;
    for expected in 2..5 {
        assert_eq!(daemon.count(&forks[0]).await, expected);
    }
    assert_eq!(daemon.count(&forks[1]).await, 2);
    daemon
        .sh(
            &forks[0],
            "dd if=/dev/urandom of=/dev/shm/x bs=1M count=16 2>&1",
        )
        .await;
    assert_eq!(daemon.sh(&forks[1], "ls /dev/shm").await, "answer\nask");
    let late = daemon.sprout("a", "late").await;
    assert_eq!(daemon.count(&late).await, 2);
    assert_eq!(daemon.sh(&late, "ls /dev/shm").await, "answer\nask");
}

#[tokio::test]
async fn rule_5_own_agent_channel() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.template("a").await;
    let forks = daemon.sprouts("a", "f", 4).await;
    // Many commands at once in all of them: each answer must come from the machine that was asked.
    let rounds =
        (0..4).flat_map(|round| (1..).zip(&forks).map(move |(at, fork)| (round, at, fork)));
    let asked = rounds.map(async |(round, at, fork)| {
        let line = format!("echo {round} on $(hostname)");
        (daemon.sh(fork, &line).await, format!("{round} on f-{at}"))
    });
    for (answer, expected) in join_all(asked).await {
        assert_eq!(answer, expected);
    }
    // One channel that hangs holds no other up.
    let stuck = daemon.exec(&forks[0], &["/bin/sh", "-c", "kill -STOP $$"]);
    tokio::select! {
        biased;
        output = stuck => panic!("{output:?}"),
        answer = daemon.sh(&forks[1], "hostname") => assert_eq!(answer, "f-2"),
    }
    assert_eq!(daemon.sh(&forks[0], "hostname").await, "f-1");
}

#[tokio::test]
async fn rule_5_post_fork_runs_before_running_is_announced() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.boot("a").await;
    daemon.act("a", "standby").await.expect(200);
    let mut request = share("f");
    request["env"] = json!({"WHO": "me"});
    request["post_fork"] = json!({
        "command": ["/bin/sh", "-c", "hostname > /srv/hook; echo $WHO >> /srv/hook; cat /etc/machine-id >> /srv/hook"],
    });
    daemon.fork("a", request).await.expect(201);
    let expected = daemon
        .sh("f", "hostname; echo me; cat /etc/machine-id")
        .await;
    assert_eq!(daemon.sh("f", "cat /srv/hook").await, expected);

    // Kept for forks of the fork.
    daemon.sh("f", "rm /srv/hook").await;
    daemon.act("f", "standby").await.expect(200);
    daemon.fork("f", share("g")).await.expect(201);
    assert!(daemon.sh("g", "cat /srv/hook").await.starts_with("g\n"));
}

#[tokio::test]
async fn rule_5_a_fork_whose_post_fork_fails_leaves_nothing() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.template("a").await;
    for (command, timeout, says) in [
        (
            json!(["/bin/sh", "-c", "echo broken >&2; exit 3"]),
            "10s",
            "3",
        ),
        (json!(["/nowhere"]), "10s", "post_fork"),
        (json!(["/bin/sleep", "60"]), "500ms", "post_fork"),
    ] {
        let mut request = share("f");
        request["post_fork"] = json!({"command": command, "timeout": timeout});
        let answer = daemon.fork("a", request).await;
        let message = answer.refused(400, "post_fork_failed");
        assert!(message.contains(says), "{message}");
        let shown = daemon.show("a").await;
        assert_eq!(
            (&shown["fork_count"], &shown["mem_locked"]),
            (&json!(0), &json!(false))
        );
        assert_eq!(daemon.machines(), []);
    }
    daemon.expect_tidy().await;
    daemon.sprout("a", "f").await;
}
