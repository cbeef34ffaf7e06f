//! The rules of §3 that hold when things go wrong or happen at once: fail closed, race free, unharmed sources.

use e2e::{Daemon, Records, share};
use serde_json::{Value, json};

#[tokio::test]
async fn rule_3_9_an_unreadable_record_refuses_what_depends_on_it() {
    let Some(mut daemon) = Daemon::start().await else {
        return;
    };
    daemon.template("a").await;
    let fork = daemon.sprout("a", "f").await;
    let records = Records::open(&daemon);
    let good = records.read(&fork);
    let mistyped = good.replace("\"created_at\":", "\"created_then\":");
    for bad in ["{ not json", "{}", &mistyped] {
        records.write(&fork, bad);
        refuses(&daemon, &fork).await;
    }
    // As strict after a restart, and the fork's machine and files are left alone.
    let machine = daemon.machine(&fork);
    daemon.restart().await;
    refuses(&daemon, &fork).await;
    assert_eq!(daemon.machine(&fork), machine);
    records.write(&fork, &good);
    daemon.restart().await;
    assert_eq!(daemon.count("f").await, 2);
    daemon.delete("f").await.expect(204);
    daemon.act("a", "demote-template").await.expect(200);
}

async fn refuses(daemon: &Daemon, record: &str) {
    for answer in [
        daemon.act("a", "demote-template").await,
        daemon.delete("a").await,
        daemon.act("a", "restore").await,
        daemon.act("a", "start").await,
    ] {
        let message = answer.refused(500, "internal_error");
        assert!(message.contains(record), "{message} names {record}");
    }
    let shown = daemon.get(&format!("/instances/{record}")).await;
    assert!(shown.refused(500, "internal_error").contains(record));
    assert_eq!(Records::open(daemon).forks_of(record), 0);
}

#[tokio::test]
async fn rule_3_10_a_demote_beside_forks_sees_them_or_fails_them() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let id = daemon.template("a").await;
    for round in 0..6 {
        let name = format!("f-{round}");
        let request = json!({"name": name, "target_state": "Standby", "share_memory": true});
        let (fork, demote) = tokio::join!(
            daemon.fork("a", request),
            daemon.act("a", "demote-template"),
        );
        let shown = daemon.show("a").await;
        assert_eq!(fork.status, 201, "{fork:?}");
        match demote.status {
            // The fork came after: sharing promotes again.
            200 | 409 => assert_eq!(
                (&shown["state"], &shown["fork_count"]),
                (&json!("Template"), &json!(1))
            ),
            _ => panic!("{demote:?}"),
        }
        assert_eq!(Records::open(&daemon).forks_of(&id), 1);
        daemon.delete(&name).await.expect(204);
    }
}

#[tokio::test]
async fn rule_3_10_a_delete_beside_forks_leaves_no_fork_without_its_parent() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.template("origin").await;
    for round in 0..4 {
        let name = format!("t-{round}");
        let copy = json!({"name": name, "share_memory": false, "target_state": "Standby"});
        daemon.fork("origin", copy).await.expect(201);
        daemon.act(&name, "promote-template").await.expect(200);
        let request = json!({"name": "f", "count": 3, "target_state": "Standby"});
        let (forks, delete) = tokio::join!(daemon.fork(&name, request), daemon.delete(&name));
        match (forks.status, delete.status) {
            (201, 409) => {
                assert_eq!(daemon.show(&name).await["fork_count"], 3);
                for fork in ["f-1", "f-2", "f-3"] {
                    daemon.delete(fork).await.expect(204);
                }
                daemon.delete(&name).await.expect(204);
            }
            (404 | 409, 204) => {}
            _ => panic!("{forks:?} beside {delete:?}"),
        }
        assert_eq!(daemon.names().await, ["origin"]);
    }
    daemon.expect_tidy().await;
}

#[tokio::test]
async fn rule_3_11_a_running_source_runs_on_and_is_not_promoted() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let id = daemon.boot("a").await;
    assert_eq!(daemon.count("a").await, 1);
    let machine = daemon.machine(&id);
    let fork = daemon
        .fork("a", json!({"name": "f", "from_running": true}))
        .await
        .expect(201);
    assert_eq!(fork["state"], "Running");
    assert_eq!(fork["fork_of_template"], Value::Null);

    let source = daemon.show("a").await;
    assert_eq!(
        (&source["state"], &source["fork_count"]),
        (&json!("Running"), &json!(0))
    );
    assert_eq!(daemon.machine(&id), machine, "the same process");
    assert_eq!(daemon.count("a").await, 2);
    assert_eq!(daemon.count("a").await, 3);
    assert_eq!(daemon.count("f").await, 2, "from where it was forked");

    // Several at once, and a fork that sleeps.
    let many = json!({"name": "g", "from_running": true, "count": 3});
    daemon.fork("a", many).await.expect(201);
    assert_eq!(daemon.count("g-3").await, 4);
    let asleep = json!({"name": "h", "from_running": true, "target_state": "Standby"});
    assert_eq!(
        daemon.fork("a", asleep).await.expect(201)["state"],
        "Standby"
    );
    daemon.act("h", "restore").await.expect(200);
    assert_eq!(daemon.count("h").await, 4);
    // The flag says nothing about a source that does not run.
    daemon.act("a", "stop").await.expect(200);
    let flagged = json!({"name": "i", "from_running": true});
    assert_eq!(
        daemon.fork("a", flagged).await.expect(201)["state"],
        "Stopped"
    );
    daemon.expect_tidy().await;
}

#[tokio::test]
async fn rule_3_11_a_failed_fork_leaves_nothing_and_the_source_unharmed() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let id = daemon.boot("a").await;
    let machine = daemon.machine(&id);
    let clash = json!({"name": "a", "from_running": true});
    daemon.fork("a", clash).await.refused(409, "name_conflict");
    let failing = json!({
        "name": "f", "from_running": true,
        "post_fork": {"command": ["/bin/false"]},
    });
    daemon
        .fork("a", failing)
        .await
        .refused(400, "post_fork_failed");
    assert_eq!(daemon.state("a").await, "Running");
    assert_eq!(daemon.machine(&id), machine);
    assert_eq!(daemon.count("a").await, 1);
    assert_eq!(daemon.names().await, ["a"]);
    daemon.expect_tidy().await;
}

#[tokio::test]
async fn rule_3_12_listings_by_state_by_template_and_by_tag() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let id = daemon.template("a").await;
    let fork = daemon.sprout("a", "f").await;
    daemon
        .fork("a", json!({"name": "g", "share_memory": false, "target_state": "Stopped", "tags": {"x": "1", "y": "2"}}))
        .await
        .expect(201);
    let names = async |query: &str| -> Vec<String> {
        let listed = daemon.get(&format!("/instances?{query}")).await.expect(200);
        let listed = listed.as_array().expect("a bare list").clone();
        listed
            .iter()
            .map(|one| one["name"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    assert_eq!(names("state=Template").await, ["a"]);
    assert_eq!(names(&format!("fork_of={id}")).await, ["f"]);
    assert_eq!(names("fork_of=a&state=Stopped").await, Vec::<String>::new());
    assert_eq!(names("tags[x]=1&tags%5By%5D=2").await, ["g"]);
    assert_eq!(names("tags[x]=2").await, Vec::<String>::new());
    assert_eq!(
        names(&format!("fork_of={fork}")).await,
        Vec::<String>::new()
    );
    daemon
        .get("/instances?fork_of=nobody")
        .await
        .refused(404, "not_found");
    let unknown = daemon.get("/instances?colour=red").await;
    assert!(unknown.refused(400, "Bad Request").contains("colour"));
}

#[tokio::test]
async fn a_template_asked_by_many_at_once_counts_them_all() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let id = daemon.boot("a").await;
    daemon.act("a", "standby").await.expect(200);
    let forks = (0..6).map(|n| daemon.fork("a", share(&format!("f-{n}"))));
    for answer in futures::future::join_all(forks).await {
        let fork = answer.expect(201);
        assert_eq!(fork["fork_of_template"], json!(id));
    }
    assert_eq!(daemon.show("a").await["fork_count"], 6);
    let deletes = (0..6).map(async |n| daemon.delete(&format!("f-{n}")).await);
    for answer in futures::future::join_all(deletes).await {
        answer.expect(204);
    }
    daemon.act("a", "demote-template").await.expect(200);
    daemon.expect_tidy().await;
}
