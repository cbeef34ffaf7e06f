//! Specification §5 and §6: what makes a fork its own machine, and fan-out.

use hypervisor::fake::{Held, Operation as Deed};
use serde_json::{Value, json};

use crate::world::{PATIENCE, STARTS, World};

#[tokio::test]
async fn a_fork_is_told_who_it_is_before_it_is_announced() {
    let world = World::new().await;
    let template = world.template("template").await;
    let path = format!("/instances/{template}/fork");
    let made = world
        .post(&path, json!({ "name": "f", "count": 3 }))
        .await
        .ok();
    let mut seen = Vec::new();
    for entry in made["forks"].as_array().unwrap() {
        let instance = &entry["instance"];
        assert_eq!(instance["state"], json!("Running"));
        let id = instance["id"].as_str().unwrap();
        let identities = world.machines.agent(id).identities();
        let identity = identities.last().unwrap();
        assert_eq!(identity.instance_id, id);
        assert_eq!(Some(identity.hostname.as_str()), instance["name"].as_str());
        assert!(identity.new_machine);
        assert_eq!(identity.entropy.len(), 64);
        assert_eq!(world.exec(id, &["hostname"]).await, identity.hostname);
        let random = world.exec(id, &["random"]).await;
        seen.push((identity.machine_id, identity.entropy.clone(), random));
    }
    let mut machine_ids: Vec<_> = seen.iter().map(|one| one.0).collect();
    let mut entropy: Vec<_> = seen.iter().map(|one| one.1.clone()).collect();
    let mut random: Vec<_> = seen.iter().map(|one| one.2.clone()).collect();
    machine_ids.sort();
    machine_ids.dedup();
    entropy.sort();
    entropy.dedup();
    random.sort();
    random.dedup();
    assert_eq!((machine_ids.len(), entropy.len(), random.len()), (3, 3, 3));
    world.delete_everything().await;
}

#[tokio::test]
async fn what_a_fork_does_is_seen_by_nobody_else() {
    let world = World::new().await;
    let source = world.running("source").await;
    world.exec(&source, &["write", "/tmp/word", "parent"]).await;
    world.act(&source, "standby").await;
    let body = |name: &str| json!({ "name": name, "share_memory": true });
    let first = world.fork(&source, body("first")).await;
    let second = world.fork(&source, body("second")).await;
    world.exec(&first, &["write", "/tmp/word", "first"]).await;
    assert_eq!(world.exec(&second, &["read", "/tmp/word"]).await, "parent");
    world.act(&first, "standby").await;
    world.act(&first, "restore").await;
    assert_eq!(world.exec(&first, &["read", "/tmp/word"]).await, "first");
    world.delete(&first).await;
    world.delete(&second).await;
    world.act(&source, "demote-template").await;
    world.act(&source, "restore").await;
    assert_eq!(world.exec(&source, &["read", "/tmp/word"]).await, "parent");
    world.delete_everything().await;
}

#[tokio::test]
async fn a_restored_machine_is_given_time_and_entropy_but_stays_who_it_is() {
    let world = World::new().await;
    let id = world.standby("a").await;
    world.act(&id, "restore").await;
    let identities = world.machines.agent(&id).identities();
    assert_eq!(identities.len(), 1);
    assert!(!identities[0].new_machine);
    assert_eq!(identities[0].hostname, "a");
    world.delete_everything().await;
}

#[tokio::test]
async fn the_hook_of_the_request_runs_in_the_fork() {
    let world = World::new().await;
    let template = world.template("template").await;
    let body = json!({ "name": "f", "post_fork": { "command": ["write", "/tmp/hooked", "yes"] } });
    let fork = world.fork(&template, body).await;
    assert_eq!(world.exec(&fork, &["read", "/tmp/hooked"]).await, "yes");
    // It is inherited, as a policy: the fork's own forks run it as well.
    world.exec(&fork, &["write", "/tmp/hooked", "no"]).await;
    world.act(&fork, "standby").await;
    let body = json!({ "name": "g", "share_memory": true });
    let grandchild = world.fork(&fork, body).await;
    assert_eq!(
        world.exec(&grandchild, &["read", "/tmp/hooked"]).await,
        "yes"
    );
    world.delete_everything().await;
}

#[tokio::test]
async fn a_hook_that_fails_removes_the_fork() {
    let world = World::new().await;
    let template = world.template("template").await;
    let before = world.picture().await;
    let path = format!("/instances/{template}/fork");
    let body = json!({ "name": "f", "post_fork": { "command": ["false"] } });
    let message = world
        .post(&path, body)
        .await
        .refused(400, "post_fork_failed");
    assert!(message.contains("post"), "{message}");
    assert_eq!(world.picture().await, before);
    assert_eq!(world.show(&template).await["fork_count"], json!(0));
    world.delete_everything().await;
}

#[tokio::test]
async fn a_guest_that_refuses_its_identity_removes_the_fork() {
    let world = World::new().await;
    let source = world.running("source").await;
    // Saved with the memory: every machine that wakes from it fails once.
    world.machines.agent(&source).fail_next_resume("no entropy");
    world.act(&source, "standby").await;
    let before = world.picture().await;
    let path = format!("/instances/{source}/fork");
    let answer = world
        .post(&path, json!({ "name": "f", "share_memory": true }))
        .await;
    assert!(answer.refused(500, "internal_error").contains("no entropy"));
    assert_eq!(
        world.picture().await,
        before,
        "the promotion is taken back, too"
    );
    world.delete_everything().await;
}

#[tokio::test]
async fn count_absent_is_one_instance_and_count_given_is_a_list() {
    let world = World::new().await;
    let template = world.template("template").await;
    let path = format!("/instances/{template}/fork");
    let one = world.post(&path, json!({ "name": "one" })).await;
    assert_eq!((one.status, &one.json()["name"]), (201, &json!("one")));
    let listed = world
        .post(&path, json!({ "name": "listed", "count": 1 }))
        .await;
    assert_eq!(listed.status, 201);
    assert_eq!(names(&listed.json()), ["listed"]);
    let many = world
        .post(&path, json!({ "name": "web", "count": 12 }))
        .await;
    assert_eq!(many.status, 201);
    let expected: Vec<String> = (1..=12).map(|number| format!("web-{number}")).collect();
    assert_eq!(names(&many.json()), expected, "in order");
    assert_eq!(world.show(&template).await["fork_count"], json!(14));
    world.delete_everything().await;
}

#[tokio::test]
async fn one_taken_name_fails_one_fork_and_all_taken_fail_the_call() {
    let world = World::new().await;
    let template = world.template("template").await;
    world
        .fork(
            &template,
            json!({ "name": "web-2", "target_state": "Stopped" }),
        )
        .await;
    let path = format!("/instances/{template}/fork");
    let answer = world
        .post(&path, json!({ "name": "web", "count": 3 }))
        .await;
    assert_eq!(answer.status, 201);
    let body = answer.json();
    assert_eq!(names(&body), ["web-1", "web-2", "web-3"]);
    assert_eq!(body["forks"][1]["error"]["code"], json!("name_conflict"));
    assert_eq!(body["forks"][1]["instance"], json!(null));
    let again = world
        .post(&path, json!({ "name": "web", "count": 3 }))
        .await;
    again.refused(409, "name_conflict");
    assert_eq!(world.show(&template).await["fork_count"], json!(3));
    world.delete_everything().await;
}

#[tokio::test]
async fn one_machine_that_does_not_start_fails_one_fork() {
    let world = World::new().await;
    let template = world.template("template").await;
    world.host.fail_next(Deed::Restore, "no memory");
    let path = format!("/instances/{template}/fork");
    let answer = world
        .post(&path, json!({ "name": "web", "count": 3 }))
        .await
        .ok();
    let failed: Vec<&Value> = answer["forks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| !entry["error"].is_null())
        .collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0]["error"]["code"], json!("internal_error"));
    assert_eq!(world.show(&template).await["fork_count"], json!(2));
    world.picture().await;
    world.delete_everything().await;
}

#[tokio::test]
async fn of_a_fan_out_without_a_fork_the_first_error_is_told() {
    let world = World::new().await;
    let template = world.template("template").await;
    world.stopped("web-1").await;
    world.host.fail_next(Deed::Restore, "no memory");
    let path = format!("/instances/{template}/fork");
    let answer = world
        .post(&path, json!({ "name": "web", "count": 2 }))
        .await;
    answer.refused(409, "name_conflict");
    world.delete_everything().await;
}

#[tokio::test]
async fn guests_that_take_long_with_their_hooks_keep_no_other_machine_asleep() {
    let world = World::new().await;
    let template = world.template("template").await;
    let sleeper = world.standby("sleeper").await;
    let path = format!("/instances/{template}/fork");
    let slow: Vec<_> = (0..STARTS)
        .map(|_| world.host.hold_next(Deed::Dial))
        .collect();
    let forks = world.post(&path, json!({ "name": "f", "count": STARTS }));
    let restore = async {
        let mut waiting = Vec::new();
        for mut one in slow {
            assert!(one.reached().await);
            waiting.push(one);
        }
        let restored = world.act(&sleeper, "restore");
        let restored = tokio::time::timeout(PATIENCE, restored).await.unwrap();
        assert_eq!(restored["state"], json!("Running"));
        waiting.into_iter().for_each(Held::release);
    };
    let (forked, ()) = tokio::join!(forks, restore);
    forked.ok();
    world.delete_everything().await;
}

#[tokio::test]
async fn a_promotion_is_taken_back_when_no_fork_could_be_made() {
    let world = World::new().await;
    let source = world.standby("source").await;
    let before = world.picture().await;
    for _ in 0..2 {
        world.host.fail_next(Deed::Restore, "no memory");
    }
    let path = format!("/instances/{source}/fork");
    let body = json!({ "name": "web", "count": 2, "share_memory": true });
    world.post(&path, body).await.refused(500, "internal_error");
    assert_eq!(world.picture().await, before);
    world.delete_everything().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_whole_forks() {
    let world = World::new().await;
    let template = world.template("template").await;
    let mut held = world.host.hold_next(Deed::Restore);
    {
        let path = format!("/instances/{template}/fork");
        let asking = world.post(&path, json!({ "name": "f" }));
        tokio::pin!(asking);
        tokio::select! {
            answer = &mut asking => panic!("{answer:?}"),
            reached = held.reached() => assert!(reached),
        }
    }
    held.release();
    let picture = world.picture().await;
    assert_eq!(picture.instances.len(), 2);
    assert_eq!(picture.machines.len(), 1);
    world.delete_everything().await;
}

fn names(answer: &Value) -> Vec<String> {
    let entries = answer["forks"].as_array().unwrap().iter();
    entries
        .map(|entry| {
            let name = if entry["name"].is_null() {
                &entry["instance"]["name"]
            } else {
                &entry["name"]
            };
            name.as_str().unwrap().to_owned()
        })
        .collect()
}
