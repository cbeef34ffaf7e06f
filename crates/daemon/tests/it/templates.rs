//! Specification §3, rule by rule; the lock (§3.7 to §3.10) has a file of its own.

use model::State;
use serde_json::json;

use crate::world::{DIGEST, OTHER_IMAGE, World};

#[tokio::test]
async fn rule_3_1_promote_and_demote_answer_with_the_instance() {
    let world = World::new().await;
    let id = world.standby("a").await;
    let promoted = world.act(&id, "promote-template").await;
    assert_eq!(
        (&promoted["id"], &promoted["state"]),
        (&json!(id), &json!("Template"))
    );
    let demoted = world.act(&id, "demote-template").await;
    assert_eq!(
        (&demoted["id"], &demoted["state"]),
        (&json!(id), &json!("Standby"))
    );
    world.delete_everything().await;
}

#[tokio::test]
async fn rule_3_2_forks_of_templates_share_and_name_their_parent_others_do_not() {
    let world = World::new().await;
    let template = world.template("template").await;
    let image = world.record(&template).standby.unwrap().to_string();
    let fork = world.fork(&template, json!({ "name": "fork" })).await;
    let shown = world.show(&fork).await;
    assert_eq!(shown["fork_of_template"], json!(template));
    assert_eq!(
        shown["memory"],
        json!({ "mode": "shared", "image_id": image })
    );
    assert_eq!(shown["state"], json!("Running"));
    let booted = world.running("booted").await;
    let shown = world.show(&booted).await;
    assert_eq!(shown["fork_of_template"], json!(null));
    assert_eq!(
        shown["memory"],
        json!({ "mode": "booted", "image_id": null })
    );
    let running = world
        .fork(&booted, json!({ "name": "running", "from_running": true }))
        .await;
    assert_eq!(world.show(&running).await["fork_of_template"], json!(null));
    world.act(&booted, "stop").await;
    let disk = world.fork(&booted, json!({ "name": "disk" })).await;
    let shown = world.show(&disk).await;
    assert_eq!(shown["fork_of_template"], json!(null));
    assert_eq!(shown["state"], json!("Stopped"));
    world.delete_everything().await;
}

#[tokio::test]
async fn rule_3_3_share_memory_promotes_a_standby_source_once_and_serves_all_from_one_image() {
    let world = World::new().await;
    let source = world.standby("source").await;
    let image = world.record(&source).standby;
    let first = world
        .fork(&source, json!({ "name": "a", "share_memory": true }))
        .await;
    assert_eq!(world.state(&source).await, "Template");
    let second = world
        .fork(&source, json!({ "name": "b", "share_memory": true }))
        .await;
    for fork in [&first, &second] {
        assert_eq!(world.record(fork).memory.image_id, image);
    }
    assert_eq!(world.record(&source).standby, image);
    for state in ["Stopped", "Running"] {
        let other = world
            .running(&format!("other-{}", state.to_lowercase()))
            .await;
        if state == "Stopped" {
            world.act(&other, "stop").await;
        }
        let path = format!("/instances/{other}/fork");
        let answer = world
            .post(&path, json!({ "name": "c", "share_memory": true }))
            .await;
        answer.refused(409, "invalid_state");
    }
    world.delete_everything().await;
}

#[tokio::test]
async fn rule_3_4_share_memory_false_copies_from_standby_and_from_a_locked_template() {
    let world = World::new().await;
    let source = world.standby("source").await;
    let copy = world
        .fork(
            &source,
            json!({ "name": "copy", "target_state": "Running" }),
        )
        .await;
    assert_eq!(world.show(&copy).await["memory"]["mode"], json!("copied"));
    assert_eq!(
        world.state(&source).await,
        "Standby",
        "left out means a copy"
    );
    world.act(&source, "promote-template").await;
    let shared = world.fork(&source, json!({ "name": "shared" })).await;
    assert_eq!(world.show(&source).await["mem_locked"], json!(true));
    let body = json!({ "name": "free", "share_memory": false });
    let free = world.fork(&source, body).await;
    let shown = world.show(&free).await;
    assert_eq!(shown["fork_of_template"], json!(null));
    assert_eq!(shown["memory"]["mode"], json!("copied"));
    assert_eq!(world.show(&source).await["fork_count"], json!(1));
    // The copy needs nobody.
    world.delete(&shared).await;
    world.delete(&source).await;
    assert_eq!(world.exec(&free, &["counter"]).await, "1");
    world.delete_everything().await;
}

#[tokio::test]
async fn rule_3_5_contradictions_are_bad_requests() {
    let world = World::new().await;
    let template = world.template("template").await;
    let running = world.running("running").await;
    let path = format!("/instances/{running}/fork");
    for body in [
        json!({ "name": "f", "share_memory": true, "from_running": true }),
        json!({ "name": "f", "share_memory": true, "template_id": template }),
        json!({ "name": "f", "share_memory": false, "template_id": template }),
        json!({ "name": "f", "from_running": true, "template_id": template }),
        json!({ "name": "f", "template_id": "template" }),
        json!({ "name": "f", "count": 0 }),
        json!({ "name": "f", "count": 1001 }),
    ] {
        let answer = world.post(&path, body.clone()).await;
        assert!(!answer.refused(400, "invalid_request").is_empty(), "{body}");
    }
    world.delete_everything().await;
}

#[tokio::test]
async fn rule_3_5_template_id_takes_the_memory_of_a_template_of_the_same_image() {
    let world = World::new().await;
    let template = world.template("template").await;
    let mut plain = World::plain("source");
    plain["tags"] = json!({ "whose": "source" });
    let made = world.post("/instances", plain).await.ok();
    let source = made["id"].as_str().unwrap().to_owned();
    world.reach(&source, State::Running).await;
    world.act(&source, "stop").await;
    let body = |name: &str| json!({ "name": name, "template_id": template });
    let fork = world.fork(&source, body("fork")).await;
    let shown = world.show(&fork).await;
    assert_eq!(shown["fork_of_template"], json!(template));
    assert_eq!(shown["tags"], json!({ "whose": "source" }));
    assert_eq!(shown["state"], json!("Running"));

    let standby = world.standby("standby").await;
    let path = format!("/instances/{source}/fork");
    let answer = world
        .post(&path, json!({ "name": "x", "template_id": standby }))
        .await;
    answer.refused(409, "invalid_state");
    let answer = world
        .post(&path, json!({ "name": "x", "template_id": "a".repeat(24) }))
        .await;
    answer.refused(404, "not_found");

    let mut plain = World::plain("other");
    plain["image"] = json!(OTHER_IMAGE);
    let made = world.post("/instances", plain).await.ok();
    let other = made["id"].as_str().unwrap().to_owned();
    world.reach(&other, State::Running).await;
    world.act(&other, "stop").await;
    let answer = world
        .post(&format!("/instances/{other}/fork"), body("y"))
        .await;
    assert!(answer.refused(400, "invalid_request").contains("image"));
    world.delete_everything().await;
}

#[tokio::test]
async fn rule_3_6_a_fork_inherits_policies_and_not_history() {
    let world = World::new().await;
    let mut plain = World::plain("source");
    plain["env"] = json!({ "KEEP": "1", "CHANGE": "old" });
    plain["tags"] = json!({ "team": "a" });
    plain["ttl"] = json!("1h");
    let made = world.post("/instances", plain).await.ok();
    let source = made["id"].as_str().unwrap().to_owned();
    world.reach(&source, State::Running).await;
    world.act(&source, "standby").await;
    let template = world.act(&source, "promote-template").await;
    let body = json!({ "name": "fork", "env": { "CHANGE": "new", "ADD": "2" } });
    let fork = world.fork(&source, body).await;
    let shown = world.show(&fork).await;
    for field in [
        "image",
        "size",
        "overlay_size",
        "vcpus",
        "tags",
        "platform",
        "hypervisor",
    ] {
        assert_eq!(shown[field], template[field], "{field}");
    }
    assert_eq!(
        shown["env"],
        json!({ "KEEP": "1", "CHANGE": "new", "ADD": "2" })
    );
    assert_eq!(shown["expires_at"], json!(null));
    assert_eq!(shown["exit_code"], json!(null));
    assert_eq!(shown["stopped_at"], json!(null));
    assert_ne!(shown["created_at"], template["created_at"]);
    let record = world.record(&fork);
    assert!(!record.template);
    assert!(!record.phases.totals_ms.contains_key(&State::Template));
    assert_eq!(record.spec.image_digest, DIGEST);

    // A fork of a fork: its parent is the source it was forked from, if that was a template.
    world.act(&fork, "standby").await;
    let body = json!({ "name": "grandchild", "target_state": "Running" });
    let copy = world.fork(&fork, body).await;
    assert_eq!(world.show(&copy).await["fork_of_template"], json!(null));
    world.act(&fork, "promote-template").await;
    let grandchild = world.fork(&fork, json!({ "name": "grandchild-2" })).await;
    assert_eq!(
        world.show(&grandchild).await["fork_of_template"],
        json!(fork)
    );
    world.delete_everything().await;
}

#[tokio::test]
async fn rule_3_11_a_running_source_is_captured_and_runs_on() {
    let world = World::new().await;
    let source = world.running("source").await;
    assert_eq!(world.exec(&source, &["counter"]).await, "1");
    let pid = world.machines.pid(&source).await;
    let fork = world
        .fork(&source, json!({ "name": "fork", "from_running": true }))
        .await;
    assert_eq!(world.state(&source).await, "Running");
    assert_eq!(world.machines.pid(&source).await, pid);
    for id in [&source, &fork] {
        assert_eq!(
            world.exec(id, &["counter"]).await,
            "2",
            "each goes on from the capture"
        );
    }
    let shown = world.show(&source).await;
    assert_eq!(
        (&shown["mem_locked"], &shown["fork_count"]),
        (&json!(false), &json!(0))
    );
    world.delete_everything().await;
}

#[tokio::test]
async fn rule_3_11_a_taken_name_leaves_the_source_running_and_nothing_behind() {
    let world = World::new().await;
    let source = world.running("source").await;
    world.stopped("taken").await;
    let before = world.picture().await;
    let path = format!("/instances/{source}/fork");
    let answer = world
        .post(&path, json!({ "name": "taken", "from_running": true }))
        .await;
    answer.refused(409, "name_conflict");
    assert_eq!(world.picture().await, before);
    world.delete_everything().await;
}

#[tokio::test]
async fn rule_3_12_listing_by_state_parent_and_tags() {
    let world = World::new().await;
    let template = world.template("template").await;
    world.fork(&template, json!({ "name": "fork" })).await;
    let mut plain = World::plain("tagged");
    plain["tags"] = json!({ "a": "1", "b": "2" });
    world.post("/instances", plain).await.ok();
    for (query, expected) in [
        ("", vec!["template", "fork", "tagged"]),
        ("?state=Template", vec!["template"]),
        ("?state=Standby", vec![]),
        ("?fork_of=template", vec!["fork"]),
        ("?fork_of=tagged", vec![]),
        ("?tags[a]=1", vec!["tagged"]),
        ("?tags[a]=1&tags[b]=2", vec!["tagged"]),
        ("?tags[a]=2", vec![]),
    ] {
        let listed = world.get(&format!("/instances{query}")).await.ok();
        let names: Vec<&str> = listed
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, expected, "{query}");
    }
    world
        .get("/instances?fork_of=nobody")
        .await
        .refused(404, "not_found");
    world
        .get("/instances?state=Asleep")
        .await
        .refused(400, "Bad Request");
    world
        .get("/instances?colour=red")
        .await
        .refused(400, "Bad Request");
    world.settle().await;
    world.delete_everything().await;
}
