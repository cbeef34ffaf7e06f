//! The daemon is killed at any moment and started again (§7).

use std::time::Duration;

use e2e::{Daemon, Moment, plain_create, share};
use futures::future::join_all;
use serde_json::json;

/// Most operations here take about half as long, so they are struck at all stages and sometimes not at all.
const STRIKE: Duration = Duration::from_millis(600);

#[tokio::test]
async fn rule_7_machines_run_on_and_are_adopted() {
    let Some(mut daemon) = Daemon::start().await else {
        return;
    };
    daemon.template("a").await;
    let forks = daemon.sprouts("a", "f", 4).await;
    let ticking = "n=0; while :; do n=$((n + 1)); echo $n > /dev/shm/ticks.new; mv /dev/shm/ticks.new /dev/shm/ticks; usleep 100000; done";
    daemon
        .sh(
            &forks[0],
            &format!(
                "({ticking}) > /dev/null 2>&1 & until [ -s /dev/shm/ticks ]; do usleep 10000; done"
            ),
        )
        .await;
    let machines = daemon.machines();
    assert_eq!(machines.len(), 4);
    let before = ticks(&daemon, &forks[0]).await;

    // More than once: the line to a guest must survive any number of hosts.
    for round in 0..3 {
        daemon.kill();
        let mut alive = daemon.machines();
        alive.sort_by_key(|machine| machine.pid);
        let mut expected = machines.clone();
        expected.sort_by_key(|machine| machine.pid);
        assert_eq!(alive, expected, "the same processes without a daemon");
        let half = daemon.directory(&forks[0]).join("run/state.part");
        std::fs::write(&half, "a capture that was cut short").expect("a leftover");
        daemon.revive().await;
        assert!(!half.exists(), "swept though its machine runs");
        for fork in &forks {
            assert_eq!(daemon.state(fork).await, "Running", "at once");
        }
        let counts = join_all(forks.iter().map(|fork| daemon.count(fork))).await;
        assert_eq!(counts, [2 + round; 4]);
        let shown = daemon.show("a").await;
        assert_eq!(
            (&shown["state"], &shown["fork_count"]),
            (&json!("Template"), &json!(4))
        );
        daemon.act("a", "demote-template").await.conflict();
    }
    assert!(ticks(&daemon, &forks[0]).await > before, "it went on");

    // Adopted machines can do all that others can.
    daemon.act(&forks[0], "standby").await.expect(200);
    daemon.act(&forks[0], "restore").await.expect(200);
    assert_eq!(daemon.count(&forks[0]).await, 5);
    daemon.sprout("a", "late").await;
    assert_eq!(daemon.count("late").await, 2);
    daemon
        .fork(
            &forks[1],
            json!({"name": "grandchild", "from_running": true}),
        )
        .await
        .expect(201);
    assert_eq!(daemon.count("grandchild").await, 5);
    daemon.act(&forks[2], "stop").await.expect(200);
    daemon.expect_tidy().await;
}

async fn ticks(daemon: &Daemon, instance: &str) -> u64 {
    let text = daemon.sh(instance, "cat /dev/shm/ticks").await;
    text.parse().expect("a number")
}

#[tokio::test]
async fn rule_7_an_end_while_nobody_looked_is_noticed() {
    let Some(mut daemon) = Daemon::start().await else {
        return;
    };
    let one = daemon.boot("one").await;
    daemon.boot("two").await;
    daemon.kill();
    let machine = daemon.machine(&one);
    let killed = std::process::Command::new("kill")
        .args(["-9", &machine.pid.to_string()])
        .status();
    assert!(killed.is_ok_and(|status| status.success()));
    e2e::until("the machine to end", async || {
        (!daemon.machines().contains(&machine)).then_some(())
    })
    .await;
    daemon.revive().await;
    assert_eq!(daemon.state("one").await, "Stopped");
    let shown = daemon.show("one").await;
    assert!(shown["exit_message"].is_string(), "{shown}");
    assert_eq!(daemon.count("two").await, 1);
    daemon.act("one", "start").await.expect(200);
    daemon.wait_for("one", "Running").await;
    daemon.expect_tidy().await;
}

#[tokio::test]
async fn rule_7_killed_in_the_middle_of_create() {
    let Some(mut daemon) = Daemon::start().await else {
        return;
    };
    for round in 0..4 {
        let name = format!("c-{round}");
        strike(&mut daemon, "POST", "/instances", plain_create(&name)).await;
        let names = daemon.names().await;
        if names.contains(&name) {
            // It was kept: then it must come up.
            daemon.wait_for(&name, "Running").await;
            daemon.wait_for_counter(&name).await;
            assert_eq!(daemon.count(&name).await, 1);
            daemon.delete(&name).await.expect(204);
        }
        daemon.expect_tidy().await;
        // No name is poisoned.
        daemon
            .post("/instances", plain_create(&name))
            .await
            .expect(201);
        daemon
            .delete(&format!("{name}?graceful_shutdown=false"))
            .await
            .expect(204);
    }
    daemon.expect_tidy().await;
}

#[tokio::test]
async fn rule_7_killed_in_the_middle_of_standby_and_restore() {
    let Some(mut daemon) = Daemon::start().await else {
        return;
    };
    let id = daemon.boot("a").await;
    let mut count = 0;
    for _ in 0..6 {
        strike(&mut daemon, "POST", "/instances/a/standby", json!({})).await;
        settled(&daemon, &id).await;
        if daemon.state("a").await == "Running" {
            count += 1;
            assert_eq!(daemon.count("a").await, count, "it ran on");
            daemon.act("a", "standby").await.expect(200);
        }
        strike(&mut daemon, "POST", "/instances/a/restore", json!({})).await;
        settled(&daemon, &id).await;
        if daemon.state("a").await == "Standby" {
            daemon.act("a", "restore").await.expect(200);
        }
        count += 1;
        assert_eq!(daemon.count("a").await, count, "from where it slept");
    }
    daemon.expect_tidy().await;
}

#[tokio::test]
async fn rule_7_killed_in_the_middle_of_sixteen_forks() {
    let Some(mut daemon) = Daemon::start().await else {
        return;
    };
    let id = daemon.template("a").await;
    for _ in 0..4 {
        let mut request = share("f");
        request["count"] = json!(16);
        strike(&mut daemon, "POST", "/instances/a/fork", request).await;
        let shown = daemon.show("a").await;
        let listed = daemon.get("/instances?fork_of=a").await.expect(200);
        let forks = listed.as_array().expect("a list").clone();
        assert_eq!(
            shown["fork_count"],
            json!(forks.len()),
            "what is counted is there"
        );
        assert_eq!(shown["state"], "Template");
        if forks.is_empty() {
            assert_eq!(shown["mem_locked"], false);
        } else {
            daemon.act("a", "demote-template").await.conflict();
        }
        for fork in &forks {
            let name = fork["name"].as_str().expect("a name");
            assert_eq!(fork["state"], "Running", "{fork}");
            assert_eq!(daemon.sh(name, "hostname").await, name);
            assert_eq!(daemon.count(name).await, 2);
        }
        daemon.expect_tidy().await;
        for fork in &forks {
            let name = fork["name"].as_str().expect("a name");
            daemon.delete(name).await.expect(204);
        }
        assert_eq!(daemon.show(&id).await["fork_count"], 0);
        // Every name is free again.
        let stopped = json!({"name": "f", "count": 16, "target_state": "Stopped"});
        let made = daemon.fork("a", stopped).await.expect(201);
        for entry in made["forks"].as_array().expect("a list") {
            let fork = entry["instance"]["id"]
                .as_str()
                .unwrap_or_else(|| panic!("{entry}"));
            daemon.delete(fork).await.expect(204);
        }
    }
    daemon.act("a", "demote-template").await.expect(200);
    daemon.act("a", "restore").await.expect(200);
    assert_eq!(daemon.count("a").await, 2);
    daemon.expect_tidy().await;
}

#[tokio::test]
async fn rule_7_killed_in_the_middle_of_a_fork_from_running() {
    let Some(mut daemon) = Daemon::start().await else {
        return;
    };
    let id = daemon.boot("a").await;
    let machine = daemon.machine(&id);
    for round in 1..=5 {
        let request = json!({"name": "f", "from_running": true});
        strike(&mut daemon, "POST", "/instances/a/fork", request).await;
        settled(&daemon, &id).await;
        assert_eq!(daemon.state("a").await, "Running");
        assert_eq!(daemon.machine(&id), machine, "the source is unharmed");
        assert_eq!(daemon.count("a").await, round);
        daemon.expect_tidy().await;
        if daemon.names().await.contains(&"f".to_owned()) {
            assert_eq!(daemon.count("f").await, round);
            daemon.delete("f").await.expect(204);
        }
    }
}

#[tokio::test]
async fn rule_7_killed_in_the_middle_of_stop_and_delete() {
    let Some(mut daemon) = Daemon::start().await else {
        return;
    };
    daemon.template("a").await;
    for round in 0..3 {
        let fork = daemon.sprout("a", "f").await;
        strike(&mut daemon, "POST", "/instances/f/stop", json!({})).await;
        settled(&daemon, &fork).await;
        if daemon.state("f").await == "Running" {
            assert_eq!(
                daemon.count("f").await,
                2,
                "it was not asked yet, round {round}"
            );
        }
        strike(&mut daemon, "DELETE", "/instances/f", json!({})).await;
        if daemon.names().await.contains(&"f".to_owned()) {
            daemon.delete("f").await.expect(204);
        }
        assert_eq!(daemon.show("a").await["fork_count"], 0);
        daemon.expect_tidy().await;
    }
}

/// Sends a request, kills the daemon at a random moment of it, and starts it again.
async fn strike(daemon: &mut Daemon, method: &str, path: &str, body: serde_json::Value) {
    let asked = daemon.send_off(method, path, body);
    Moment::within(STRIKE).come().await;
    daemon.kill();
    // The connection broke, or the answer came just before.
    let _ = asked.await;
    daemon.revive().await;
}

/// Waits until the instance rests: what was under way at the start of the daemon has been finished or undone.
async fn settled(daemon: &Daemon, id: &str) {
    e2e::until("it to rest", async || {
        let state = daemon.state(id).await;
        ["Running", "Standby", "Template", "Stopped"]
            .contains(&state.as_str())
            .then_some(())
    })
    .await;
}
