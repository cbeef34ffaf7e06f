//! The rules of templates and shared memory (§3), each by its number.

use e2e::{Daemon, share};
use serde_json::{Value, json};

#[tokio::test]
async fn rule_3_1_promote_and_demote_take_no_body_and_answer_the_instance() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let id = daemon.boot("a").await;
    daemon.act("a", "standby").await.expect(200);
    let promoted = daemon.act("a", "promote-template").await.expect(200);
    assert_eq!(
        (&promoted["id"], &promoted["state"]),
        (&json!(id), &json!("Template"))
    );
    let demoted = daemon.act("a", "demote-template").await.expect(200);
    assert_eq!(
        (&demoted["id"], &demoted["state"]),
        (&json!(id), &json!("Standby"))
    );
}

#[tokio::test]
async fn rule_3_2_a_fork_of_a_template_shares_its_image_and_records_its_parent() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let id = daemon.boot("a").await;
    let booted = daemon.show("a").await;
    assert_eq!(
        booted["memory"],
        json!({"mode": "booted", "image_id": null})
    );
    assert_eq!(booted["fork_of_template"], Value::Null);

    daemon.act("a", "standby").await.expect(200);
    let plain = daemon
        .fork("a", json!({"name": "plain", "target_state": "Running"}))
        .await
        .expect(201);
    assert_eq!(plain["fork_of_template"], Value::Null);
    assert_eq!(plain["memory"]["mode"], "copied");

    daemon.act("a", "promote-template").await.expect(200);
    let directory = daemon.image(&id);
    let image = file_name(&directory);
    let shared = daemon
        .fork("a", json!({"name": "shared"}))
        .await
        .expect(201);
    assert_eq!(shared["state"], "Running");
    assert_eq!(shared["fork_of_template"], json!(id));
    assert_eq!(
        shared["memory"],
        json!({"mode": "shared", "image_id": image})
    );
    assert_eq!(
        (daemon.count("plain").await, daemon.count("shared").await),
        (1, 1)
    );
}

#[tokio::test]
async fn rule_3_3_share_memory_promotes_and_forks_in_one_call_and_again_without_promoting() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let id = daemon.boot("a").await;
    daemon.fork("a", share("f")).await.conflict();
    daemon.act("a", "standby").await.expect(200);

    let first = daemon.fork("a", share("f-1")).await.expect(201);
    let source = daemon.show("a").await;
    assert_eq!(
        (&source["state"], &source["fork_count"]),
        (&json!("Template"), &json!(1))
    );
    let second = daemon.fork("a", share("f-2")).await.expect(201);
    for fork in [&first, &second] {
        assert_eq!(fork["state"], "Running");
        assert_eq!(fork["fork_of_template"], json!(id));
    }
    assert_eq!(
        first["memory"], second["memory"],
        "one image serves every fork"
    );

    let fork = first["id"].as_str().expect("an id");
    daemon.act(fork, "stop").await.expect(200);
    daemon.fork(fork, share("g")).await.conflict();
    assert_eq!(daemon.names().await, ["a", "f-1", "f-2"]);
}

#[tokio::test]
async fn rule_3_3_a_fork_that_cannot_be_made_does_not_promote() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.boot("a").await;
    daemon.act("a", "standby").await.expect(200);
    daemon
        .fork("a", share("a"))
        .await
        .refused(409, "name_conflict");
    assert_eq!(daemon.state("a").await, "Standby");
    daemon.act("a", "restore").await.expect(200);
}

#[tokio::test]
async fn rule_3_4_a_copy_may_be_taken_from_a_locked_template_and_has_no_parent() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.template("a").await;
    daemon.sprout("a", "shared").await;
    let copied = daemon
        .fork("a", json!({"name": "copied", "share_memory": false}))
        .await
        .expect(201);
    assert_eq!(copied["fork_of_template"], Value::Null);
    assert_eq!(copied["memory"]["mode"], "copied");
    assert_eq!(copied["state"], "Running");
    assert_eq!(daemon.show("a").await["fork_count"], 1);

    // Independent for good: it outlives the template.
    daemon.delete("shared").await.expect(204);
    daemon.delete("a").await.expect(204);
    assert_eq!(daemon.count("copied").await, 2);
    daemon.act("copied", "standby").await.expect(200);
    daemon.act("copied", "restore").await.expect(200);
    assert_eq!(daemon.count("copied").await, 3);
    daemon.expect_tidy().await;
}

#[tokio::test]
async fn rule_3_4_left_out_share_memory_is_true_for_a_template_and_false_otherwise() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.boot("a").await;
    daemon.act("a", "standby").await.expect(200);
    let from_standby = daemon.fork("a", json!({"name": "f-1"})).await.expect(201);
    assert_eq!(from_standby["fork_of_template"], Value::Null);
    assert_eq!(daemon.state("a").await, "Standby", "not promoted");
    daemon.act("a", "promote-template").await.expect(200);
    let from_template = daemon.fork("a", json!({"name": "f-2"})).await.expect(201);
    assert_eq!(from_template["memory"]["mode"], "shared");
    assert_eq!(daemon.show("a").await["fork_count"], 1);
}

#[tokio::test]
async fn rule_3_5_contradictions_are_400_whatever_the_state() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let template = daemon.template("a").await;
    for request in [
        json!({"name": "f", "share_memory": true, "from_running": true}),
        json!({"name": "f", "share_memory": true, "template_id": template}),
    ] {
        daemon
            .fork("a", request)
            .await
            .refused(400, "invalid_request");
    }
    assert_eq!(daemon.show("a").await["fork_count"], 0);
}

#[tokio::test]
async fn rule_3_5_template_id_names_whose_memory_a_fork_takes() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let template = daemon.template("a").await;
    let mut request = e2e::plain_create("b");
    request["env"] = json!({"OF": "b"});
    let source = daemon.boot_as(request).await;
    let with = |id: &str| json!({"name": "f", "template_id": id});

    daemon.fork("b", with(&template)).await.conflict();
    daemon.act("b", "stop").await.expect(200);
    daemon.fork("b", with(&source)).await.conflict();
    daemon
        .fork("b", with("nobody"))
        .await
        .refused(400, "invalid_request");

    let fork = daemon
        .fork(
            "b",
            json!({"name": "f", "template_id": template, "target_state": "Running"}),
        )
        .await
        .expect(201);
    assert_eq!(fork["fork_of_template"], json!(template));
    assert_eq!(fork["memory"]["mode"], "shared");
    assert_eq!(fork["env"]["OF"], "b", "the rest is the source's");
    assert_eq!(daemon.count("f").await, 2, "the memory is the template's");
    daemon.act("a", "demote-template").await.conflict();
}

#[tokio::test]
async fn rule_3_6_what_a_fork_inherits_and_what_it_never_does() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let mut request = e2e::plain_create("a");
    request["env"] = json!({"COLOUR": "red"});
    request["tags"] = json!({"team": "blue"});
    request["ttl"] = json!("1h");
    let template = daemon.boot_as(request).await;
    daemon.act("a", "standby").await.expect(200);
    let fork = daemon.fork("a", share("f")).await.expect(201);
    let source = daemon.show("a").await;
    for inherited in [
        "image",
        "env",
        "tags",
        "size",
        "overlay_size",
        "vcpus",
        "hypervisor",
        "platform",
    ] {
        assert_eq!(fork[inherited], source[inherited], "{inherited}");
    }
    assert_ne!(source["expires_at"], Value::Null);
    assert_eq!(fork["expires_at"], Value::Null);
    assert_eq!(fork["fork_count"], 0);
    assert_eq!(fork["mem_locked"], false);
    assert_eq!(fork["exit_code"], Value::Null);
    assert_ne!(fork["created_at"], source["created_at"]);
    let phases = fork["phase_durations_ms"].as_object().expect("phases");
    assert!(
        !phases.contains_key("template") && !phases.contains_key("initializing"),
        "{fork}"
    );
    assert_eq!(fork["fork_of_template"], json!(template));

    // A fork of a fork: the parent is its source if that was a template, and none otherwise; never the grandparent.
    daemon.act("f", "standby").await.expect(200);
    let copy = daemon.fork("f", json!({"name": "g"})).await.expect(201);
    assert_eq!(copy["fork_of_template"], Value::Null);
    let nested = daemon.fork("f", share("h")).await.expect(201);
    assert_eq!(nested["fork_of_template"], fork["id"]);
    assert_eq!(daemon.state("f").await, "Template");
    assert_eq!(daemon.show("a").await["fork_count"], 1);
    assert_eq!(daemon.show("f").await["fork_count"], 1);
    daemon.delete("f").await.conflict();
}

#[tokio::test]
async fn rule_3_6_a_fork_does_not_inherit_how_its_source_ended() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.boot("a").await;
    // The machine may be gone before the command that ends it.
    let _ = daemon
        .try_exec("a", &["/bin/sh", "-c", "echo exit > /dev/shm/ask"])
        .await;
    daemon.wait_for("a", "Stopped").await;
    assert_eq!(daemon.show("a").await["exit_code"], 7);
    let fork = daemon.fork("a", json!({"name": "f"})).await.expect(201);
    assert_eq!(fork["state"], "Stopped");
    assert_eq!(
        (&fork["exit_code"], &fork["exit_message"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(fork["started_at"], Value::Null);
}

#[tokio::test]
async fn rule_3_6_tags_and_env_of_the_request() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let mut request = e2e::plain_create("a");
    request["env"] = json!({"KEPT": "1", "CHANGED": "1"});
    request["tags"] = json!({"team": "blue"});
    daemon.boot_as(request).await;
    daemon.act("a", "stop").await.expect(200);
    let fork = daemon
        .fork(
            "a",
            json!({"name": "f", "env": {"CHANGED": "2"}, "tags": {"for": "me"}}),
        )
        .await
        .expect(201);
    assert_eq!(fork["env"], json!({"KEPT": "1", "CHANGED": "2"}), "merged");
    assert_eq!(fork["tags"], json!({"for": "me"}), "replaced");
}

#[tokio::test]
async fn rule_3_7_forks_count_in_every_state_until_they_are_gone() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.template("a").await;
    let expect = async |count: u64| {
        let shown = daemon.show("a").await;
        let listed = daemon.list().await;
        let in_list = listed.iter().find(|one| one["name"] == "a").expect("a");
        for seen in [&shown, in_list] {
            assert_eq!(seen["fork_count"], json!(count), "{seen}");
            assert_eq!(seen["mem_locked"], json!(count > 0), "{seen}");
        }
    };
    expect(0).await;
    for (number, target) in [(1, "Stopped"), (2, "Standby"), (3, "Running")] {
        let name = target.to_lowercase();
        let made = daemon
            .fork("a", json!({"name": name, "target_state": target}))
            .await
            .expect(201);
        assert_eq!(made["state"], target, "{made}");
        expect(number).await;
    }
    daemon.act("running", "stop").await.expect(200);
    expect(3).await;
    for (left, name) in [(2, "running"), (1, "standby"), (0, "stopped")] {
        daemon.delete(name).await.expect(204);
        expect(left).await;
    }
    daemon.act("a", "demote-template").await.expect(200);
}

#[tokio::test]
async fn rule_3_8_a_lock_says_how_many_forks_there_are_and_ends_with_the_last() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let id = daemon.template("a").await;
    let forks = daemon.sprouts("a", "f", 2).await;
    for action in ["start", "restore", "standby", "demote-template"] {
        let answer = daemon.act("a", action).await;
        assert!(answer.conflict().contains("2 live forks"), "{answer:?}");
        assert!(answer.message().contains("fork_of="), "{answer:?}");
    }
    for query in ["", "?graceful_shutdown=false"] {
        let answer = daemon.delete(&format!("{id}{query}")).await;
        assert!(answer.conflict().contains("2 live forks"), "{answer:?}");
    }
    daemon.delete(&forks[0]).await.expect(204);
    let answer = daemon.delete("a").await;
    assert!(answer.conflict().contains("1 live fork "), "{answer:?}");
    daemon.delete(&forks[1]).await.expect(204);
    daemon.delete("a").await.expect(204);
    daemon.expect_tidy().await;
}

#[tokio::test]
async fn rule_3_8_expiry_waits_for_the_lock() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let id = daemon.template("a").await;
    daemon.sprout("a", "f").await;
    let soon = json!({"ttl": "1ms"});
    daemon
        .call(reqwest::Method::PATCH, "/instances/a", Some(soon.clone()))
        .await
        .expect(200);
    // Another instance that expires later is the sign that the reaper has been by.
    daemon
        .fork(
            "a",
            json!({"name": "sign", "share_memory": false, "target_state": "Stopped"}),
        )
        .await
        .expect(201);
    daemon
        .call(reqwest::Method::PATCH, "/instances/sign", Some(soon))
        .await
        .expect(200);
    gone(&daemon, "sign").await;
    assert_eq!(daemon.state(&id).await, "Template");
    assert_eq!(daemon.count("f").await, 2);
    daemon.delete("f").await.expect(204);
    gone(&daemon, &id).await;
    daemon.expect_tidy().await;
}

async fn gone(daemon: &Daemon, instance: &str) {
    e2e::until(&format!("{instance} to be gone"), async || {
        let answer = daemon.get(&format!("/instances/{instance}")).await;
        (answer.status == 404).then_some(())
    })
    .await;
}

fn file_name(path: &std::path::Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .expect("a name")
}
