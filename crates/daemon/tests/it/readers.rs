//! Waiting and logs.

use std::io::Write as _;

use daemon::instances::LogSource;
use futures::StreamExt as _;
use hypervisor::fake::Operation as Deed;
use model::State;
use serde_json::json;
use tower::ServiceExt as _;

use crate::world::World;

#[tokio::test]
async fn a_wait_ends_at_the_state_at_rest_elsewhere_or_in_time() {
    let world = World::new().await;
    let id = world.running("a").await;
    let wait = async |query: &str| world.get(&format!("/instances/{id}/wait?{query}")).await;
    let answer = wait("state=Running").await.ok();
    assert_eq!(answer, json!({ "state": "Running", "timed_out": false }));
    let answer = wait("state=Standby&timeout=1ms").await.ok();
    assert_eq!(answer, json!({ "state": "Running", "timed_out": true }));
    world.act(&id, "standby").await;
    let answer = wait("state=Running&timeout=5m").await.ok();
    assert_eq!(answer, json!({ "state": "Standby", "timed_out": false }));
    for (query, code) in [
        ("state=Unknown", "invalid_state"),
        ("state=Running&timeout=0s", "invalid_timeout"),
        ("state=Running&timeout=later", "invalid_timeout"),
        ("state=Running&timeout=-1s", "invalid_timeout"),
    ] {
        wait(query).await.refused(400, code);
    }
    world
        .get("/instances/nobody/wait?state=Running")
        .await
        .refused(404, "not_found");
    world.delete_everything().await;
}

#[tokio::test]
async fn a_wait_sees_an_operation_that_has_just_begun() {
    let world = World::new().await;
    let id = world.standby("a").await;
    let mut held = world.host.hold_next(Deed::Restore);
    let path = format!("/instances/{id}/restore");
    let restoring = world.call("POST", &path, "");
    let waiting = async {
        assert!(held.reached().await);
        let published = world.daemon().instances.published(&id.parse().unwrap());
        // What the wait looks at: not there yet, and not at rest.
        let published = published.unwrap();
        assert_eq!((published.state, published.busy), (State::Standby, true));
        let path = format!("/instances/{id}/wait?state=Running");
        let asked = world.get(&path);
        let (waited, ()) = tokio::join!(asked, async { held.release() });
        waited.ok()
    };
    let (restored, waited) = tokio::join!(restoring, waiting);
    assert_eq!(restored.ok()["state"], json!("Running"));
    assert_eq!(waited, json!({ "state": "Running", "timed_out": false }));
    world.delete_everything().await;
}

#[tokio::test]
async fn a_wait_for_what_is_deleted_is_over() {
    let world = World::new().await;
    let id = world.running("a").await;
    let path = format!("/instances/{id}/wait?state=Standby");
    let (waited, ()) = tokio::join!(world.get(&path), async {
        world.get("/instances").await.ok();
        world.delete(&id).await;
    });
    waited.refused(404, "not_found");
}

fn append(world: &World, id: &str, text: &str) {
    let path = world
        .layout
        .instance(&id.parse().unwrap())
        .log(LogSource::App);
    let file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path);
    file.unwrap().write_all(text.as_bytes()).unwrap();
}

/// The data of each event.
fn lines(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

#[tokio::test]
async fn logs_give_the_last_lines_of_each_source() {
    let world = World::new().await;
    let id = world.stopped("a").await;
    let logs = async |query: &str| world.get(&format!("/instances/{id}/logs{query}")).await;
    logs("").await.refused(404, "log_not_found");
    append(&world, &id, "one\ntwo \"quoted\"\nthree\nhalf");
    assert_eq!(
        lines(&logs("").await.text),
        ["one", "two \"quoted\"", "three", "half"]
    );
    assert_eq!(lines(&logs("?tail=2").await.text), ["three", "half"]);
    assert_eq!(lines(&logs("?tail=0").await.text), Vec::<String>::new());
    let answer = logs("?source=coppice").await;
    assert_eq!(answer.content_type, "text/event-stream");
    let operations: Vec<serde_json::Value> = lines(&answer.text)
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let names: Vec<&str> = operations
        .iter()
        .filter_map(|operation| operation["operation"].as_str())
        .collect();
    assert_eq!(names, ["create", "stop"]);
    logs("?source=other").await.refused(400, "Bad Request");
    world.delete_everything().await;
}

#[tokio::test]
async fn a_followed_log_goes_on_until_the_instance_is_gone() {
    let world = World::new().await;
    let id = world.stopped("a").await;
    append(&world, &id, "old\n");
    let path = format!("/instances/{id}/logs?follow=true");
    let request = crate::world::request(&world.daemon().token, "GET", &path, None);
    let router = world.daemon().router.clone();
    let (sender, mut received) = tokio::sync::mpsc::channel(16);
    let following = world.daemon().runtime().spawn(async move {
        let response = router.oneshot(request).await.unwrap();
        let mut body = response.into_body().into_data_stream();
        while let Some(Ok(bytes)) = body.next().await {
            for line in lines(std::str::from_utf8(&bytes).unwrap()) {
                sender.send(line).await.unwrap();
            }
        }
    });
    assert_eq!(received.recv().await.as_deref(), Some("old"));
    append(&world, &id, "new\n");
    assert_eq!(received.recv().await.as_deref(), Some("new"));
    world.delete(&id).await;
    following.await.unwrap();
    assert_eq!(received.recv().await, None);
}

#[tokio::test]
async fn what_has_expired_is_deleted_and_nothing_else() {
    let world = World::new().await;
    let kept = world.running("kept").await;
    let mut body = World::plain("late");
    body["ttl"] = json!("1h");
    let late = world.post("/instances", body).await.ok()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut body = World::plain("soon");
    body["ttl"] = json!("1ms");
    let soon = world.post("/instances", body).await.ok()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    while world.get(&format!("/instances/{soon}")).await.status != 404 {
        world.reap().await;
    }
    for id in [&kept, &late] {
        world.reach(id, State::Running).await;
    }
    world.delete_everything().await;
}
