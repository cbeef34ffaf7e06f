//! Specification §3.7 to §3.10: forks are counted, and a template with forks is locked.

use serde_json::json;

use crate::world::{World, names};

#[tokio::test]
async fn rule_3_7_forks_count_in_whatever_state_until_their_record_is_gone() {
    let world = World::new().await;
    let template = world.template("template").await;
    let count = async || {
        let shown = world.show(&template).await;
        let count = shown["fork_count"].as_u64().unwrap();
        assert_eq!(shown["mem_locked"], json!(count > 0));
        count
    };
    assert_eq!(count().await, 0);
    let mut forks = Vec::new();
    for (number, target) in ["Running", "Standby", "Stopped", "Running"]
        .iter()
        .enumerate()
    {
        let body = json!({ "name": format!("f{number}"), "target_state": target });
        forks.push(world.fork(&template, body).await);
        assert_eq!(count().await, forks.len() as u64);
    }
    world.act(&forks[0], "stop").await;
    world.act(&forks[3], "standby").await;
    assert_eq!(count().await, 4);
    world.act(&forks[3], "promote-template").await;
    assert_eq!(count().await, 4);
    while let Some(fork) = forks.pop() {
        world.delete(&fork).await;
        assert_eq!(count().await, forks.len() as u64);
    }
    world.delete_everything().await;
}

#[tokio::test]
async fn rule_3_8_a_locked_template_refuses_with_the_count_and_how_to_list() {
    let world = World::new().await;
    let template = world.template("template").await;
    let body = json!({ "name": "f", "count": 3, "target_state": "Stopped" });
    world
        .post(&format!("/instances/{template}/fork"), body)
        .await
        .ok();
    let instance = format!("/instances/{template}");
    for verb in ["start", "restore", "standby", "demote-template", ""] {
        let answer = if verb.is_empty() {
            world.call("DELETE", &instance, "").await
        } else {
            world.call("POST", &format!("{instance}/{verb}"), "").await
        };
        let message = answer.refused(409, "invalid_state");
        assert!(
            message.contains("3 live forks") && message.contains("fork_of="),
            "{message}"
        );
        assert_eq!(answer.retry.as_deref(), Some("false"), "{verb}");
    }
    assert_eq!(world.state(&template).await, "Template");
    let listed = world
        .get(&format!("/instances?fork_of={template}"))
        .await
        .ok();
    assert_eq!(listed.as_array().unwrap().len(), 3);
    world.delete_everything().await;
}

#[tokio::test]
async fn rule_3_8_expiry_of_a_locked_template_waits_for_its_forks() {
    let world = World::new().await;
    let template = world.template("template").await;
    let fork = world.fork(&template, json!({ "name": "fork" })).await;
    let patched = world
        .call(
            "PATCH",
            &format!("/instances/{template}"),
            r#"{"ttl":"1ms"}"#,
        )
        .await
        .ok();
    assert!(patched["expires_at"].is_string());
    // The first look may come within the millisecond.
    for _ in 0..3 {
        world.reap().await;
        assert_eq!(world.state(&template).await, "Template");
    }
    world.delete(&fork).await;
    while world.get(&format!("/instances/{template}")).await.status != 404 {
        world.reap().await;
    }
    world.delete_everything().await;
}

#[tokio::test]
async fn rule_3_9_a_record_that_cannot_be_read_refuses_and_is_named() {
    let world = World::new().await;
    let template = world.template("template").await;
    let fork = world.fork(&template, json!({ "name": "fork" })).await;
    let good = world.raw_record(&fork);
    world.set_raw_record(&fork, "{");
    for (method, verb) in [("POST", "/demote-template"), ("DELETE", "")] {
        let path = format!("/instances/{template}{verb}");
        let answer = world.call(method, &path, "").await;
        let message = answer.refused(500, "internal_error");
        assert!(message.contains(&fork), "{message}");
        assert_eq!(answer.retry.as_deref(), Some("false"));
    }
    world.set_raw_record(&fork, &good);
    assert_eq!(world.state(&template).await, "Template");
    world.delete_everything().await;
}

#[tokio::test]
async fn rule_3_9_what_does_not_depend_on_the_count_is_not_refused() {
    let world = World::new().await;
    let template = world.template("template").await;
    let fork = world.fork(&template, json!({ "name": "fork" })).await;
    let good = world.raw_record(&fork);
    world.set_raw_record(&fork, "{}");
    let path = format!("/instances/{template}");
    let patched = world.call("PATCH", &path, r#"{"tags":{"a":"b"}}"#).await;
    assert_eq!(patched.ok()["tags"], json!({ "a": "b" }));
    world.set_raw_record(&fork, &good);
    world.delete_everything().await;
}

#[tokio::test]
async fn rule_3_9_a_restart_leaves_what_it_cannot_read_alone() {
    let mut world = World::new().await;
    let template = world.template("template").await;
    let fork = world.fork(&template, json!({ "name": "fork" })).await;
    let pid = world.machines.pid(&fork).await;
    let good = world.raw_record(&fork);
    world.set_raw_record(&fork, r#"{"id":"what is this"}"#);
    world.restart().await;
    assert_eq!(
        world.machines.pid(&fork).await,
        pid,
        "its machine still runs"
    );
    assert!(!names(world.layout.instance(&fork.parse().unwrap()).root()).is_empty());
    let demote = world
        .call("POST", "/instances/template/demote-template", "")
        .await;
    assert!(demote.refused(500, "internal_error").contains(&fork));
    let instance = format!("/instances/{fork}");
    for (method, path) in [("GET", ""), ("POST", "/stop"), ("DELETE", "")] {
        let answer = world.call(method, &format!("{instance}{path}"), "").await;
        assert!(
            answer.refused(500, "internal_error").contains(&fork),
            "{method} {path}"
        );
    }
    let listed = world.get("/instances").await.ok();
    assert_eq!(
        listed.as_array().unwrap().len(),
        1,
        "the others are still shown"
    );
    world.set_raw_record(&fork, &good);
    world.restart().await;
    assert_eq!(world.exec(&fork, &["counter"]).await, "1");
    world.delete_everything().await;
}

#[tokio::test]
async fn rule_3_10_forks_that_run_beside_a_demotion_or_deletion_keep_their_parent_or_fail() {
    let world = World::new().await;
    for round in 0..8 {
        let template = world.template(&format!("t{round}")).await;
        let instance = format!("/instances/{template}");
        let path = format!("/instances/{template}/fork");
        let fork = world.post(
            &path,
            json!({ "name": format!("f{round}"), "target_state": "Standby" }),
        );
        let end = async {
            if round % 2 == 0 {
                world
                    .call("POST", &format!("{instance}/demote-template"), "")
                    .await
            } else {
                world.call("DELETE", &instance, "").await
            }
        };
        let (forked, ended) = if round % 4 < 2 {
            tokio::join!(fork, end)
        } else {
            let (ended, forked) = tokio::join!(end, fork);
            (forked, ended)
        };
        match (forked.status, ended.status) {
            (201, 409) => {
                let shown = world.show(forked.json()["id"].as_str().unwrap()).await;
                assert_eq!(shown["fork_of_template"], json!(template));
            }
            // Demoted first: a fork of a standby instance is a copy without a parent.
            (201, 200) => {
                let shown = world.show(forked.json()["id"].as_str().unwrap()).await;
                assert_eq!(shown["fork_of_template"], json!(null));
            }
            (404 | 409, 200 | 204) => {}
            other => panic!("{other:?} {forked:?} {ended:?}"),
        }
        world.picture().await;
    }
    world.delete_everything().await;
}
