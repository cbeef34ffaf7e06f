//! Forks that are prepared ahead: what is taken, what is told, and what goes.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{PATIENCE, When, World, names};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

/// More steps than a fork has.
const MOST_STEPS: usize = 100;

/// A template that was forked once.
async fn forked(world: &World) -> (String, String) {
    let source = world.running("template").await;
    assert_eq!(world.exec(&source, &["counter"]).await, "1");
    world.act(&source, "standby").await;
    world.act(&source, "promote-template").await;
    let first = world.fork(&source, json!({ "name": "first" })).await;
    (source, first)
}

async fn warm_forks(world: &World, template: &str) -> u64 {
    let stats = world
        .get(&format!("/instances/{template}/stats"))
        .await
        .ok();
    stats["template"]["warm_forks"].as_u64().unwrap()
}

async fn until_warm(world: &World, template: &str, count: u64) {
    let reached = async {
        while warm_forks(world, template).await != count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.unwrap();
}

/// The machines that no record names.
async fn unrecorded(world: &World) -> Vec<(String, i32)> {
    let known: Vec<String> = world
        .all_records()
        .iter()
        .map(|record| record.id.to_string())
        .collect();
    let alive = world.machines.alive().await;
    alive
        .into_iter()
        .filter(|(id, ..)| !known.contains(id))
        .map(|(id, pid, _)| (id, pid))
        .collect()
}

#[tokio::test]
async fn a_warm_fork_becomes_the_instance_and_is_replaced() {
    let world = World::with_warm_forks(1, LONG).await;
    let (template, _) = forked(&world).await;
    until_warm(&world, &template, 1).await;
    let warm = unrecorded(&world).await;
    assert_eq!(warm.len(), 1);
    assert!(world.machines.agent(&warm[0].0).identities().is_empty());

    let body = json!({ "name": "second", "env": { "A": "b" } });
    let second = world.fork(&template, body).await;
    assert_eq!(
        warm,
        [(second.clone(), world.machines.pid(&second).await.unwrap())]
    );
    let identities = world.machines.agent(&second).identities();
    assert_eq!(identities.len(), 1);
    assert_eq!(identities[0].instance_id, second);
    assert_eq!(identities[0].hostname, "second");
    assert!(identities[0].new_machine);
    let shown = world.show(&second).await;
    assert_eq!(shown["state"], json!("Running"));
    assert_eq!(shown["fork_of_template"], json!(template));
    assert_eq!(shown["memory"]["mode"], json!("shared"));
    assert_eq!(world.exec(&second, &["counter"]).await, "2");

    until_warm(&world, &template, 1).await;
    assert_ne!(unrecorded(&world).await, warm);
    world.delete_everything().await;
    assert_eq!(world.machines.alive().await, []);
}

#[tokio::test]
async fn a_fan_out_takes_what_is_warm_and_what_is_on_its_way() {
    let world = World::with_warm_forks(2, LONG).await;
    let (template, _) = forked(&world).await;
    let path = format!("/instances/{template}/fork");
    let made = world
        .post(&path, json!({ "name": "f", "count": 5 }))
        .await
        .ok();
    for entry in made["forks"].as_array().unwrap() {
        let id = entry["instance"]["id"].as_str().unwrap();
        assert_eq!(world.machines.agent(id).identities().len(), 1);
        assert_eq!(world.exec(id, &["counter"]).await, "2");
    }
    world.delete_everything().await;
    assert_eq!(world.machines.alive().await, []);
}

#[tokio::test]
async fn a_refused_fork_leaves_the_warm_one_to_the_next() {
    let world = World::with_warm_forks(1, LONG).await;
    let (template, _) = forked(&world).await;
    until_warm(&world, &template, 1).await;
    let warm = unrecorded(&world).await;
    let path = format!("/instances/{template}/fork");
    let taken = world.post(&path, json!({ "name": "first" })).await;
    assert_eq!(taken.status, 409);
    assert_eq!(unrecorded(&world).await, warm);
    let second = world.fork(&template, json!({ "name": "second" })).await;
    assert_eq!(second, warm[0].0);
    world.delete_everything().await;
}

#[tokio::test]
async fn a_warm_fork_that_died_is_not_handed_out() {
    let world = World::with_warm_forks(1, LONG).await;
    let (template, _) = forked(&world).await;
    until_warm(&world, &template, 1).await;
    let warm = unrecorded(&world).await;
    world.machines.kill(&warm[0].0).await;
    let second = world.fork(&template, json!({ "name": "second" })).await;
    assert_ne!(second, warm[0].0);
    assert_eq!(world.exec(&second, &["counter"]).await, "2");
    assert!(!names(&world.layout.instances()).contains(&warm[0].0));
    world.delete_everything().await;
}

#[tokio::test]
async fn a_template_that_is_not_forked_any_more_keeps_none() {
    let world = World::with_warm_forks(1, Duration::from_millis(300)).await;
    let (template, first) = forked(&world).await;
    until_warm(&world, &template, 1).await;
    until_warm(&world, &template, 0).await;
    assert_eq!(unrecorded(&world).await, []);
    let mut wanted = [template, first];
    wanted.sort();
    assert_eq!(names(&world.layout.instances()), wanted);
    world.delete_everything().await;
}

#[tokio::test]
async fn demotion_and_the_end_of_the_daemon_leave_none() {
    let world = World::with_warm_forks(1, LONG).await;
    let (template, first) = forked(&world).await;
    until_warm(&world, &template, 1).await;
    world.delete(&first).await;
    world.act(&template, "demote-template").await;
    assert_eq!(world.machines.alive().await, []);
    assert_eq!(names(&world.layout.instances()).join(" "), template);

    world.act(&template, "promote-template").await;
    world.fork(&template, json!({ "name": "first" })).await;
    until_warm(&world, &template, 1).await;
    let instances = std::sync::Arc::clone(&world.daemon().instances);
    let stop = world
        .daemon()
        .runtime()
        .spawn(async move { instances.drop_warm().await });
    stop.await.unwrap();
    assert_eq!(unrecorded(&world).await, []);
    world.delete_everything().await;
}

#[tokio::test]
async fn a_daemon_killed_at_any_step_of_taking_one_leaves_nothing() {
    for step in 0..MOST_STEPS {
        for when in [When::Before, When::After] {
            if !killed_at(step, when).await {
                assert!(step > 2, "taking one has steps");
                return;
            }
        }
    }
    panic!("a fork without end");
}

async fn killed_at(step: usize, when: When) -> bool {
    let mut world = World::with_warm_forks(1, LONG).await;
    let (template, first) = forked(&world).await;
    until_warm(&world, &template, 1).await;
    let pid = world.machines.pid(&first).await;
    world.gate.stop_at(step, when);
    let path = format!("/instances/{template}/fork");
    let body: Value = json!({ "name": "second" });
    let answer = world.try_call("POST", &path, &body.to_string()).await;
    if answer.is_some() && !world.gate.is_stopped() {
        return false;
    }
    world.restart().await;
    // Nothing is there but what records name, and all of it is whole.
    world.picture().await;
    assert_eq!(world.machines.pid(&first).await, pid);
    let taken = world
        .all_records()
        .iter()
        .any(|record| record.name.as_str() == "second");
    if !taken {
        world.fork(&template, body).await;
    }
    world.delete_everything().await;
    true
}

/// Five slots.
const SMALL: &str = "10.9.8.0/29";

#[tokio::test]
async fn warm_forks_of_any_template_give_way_to_a_machine_that_needs_a_slot() {
    let world = World::with_warm_forks_in(SMALL, 1, LONG).await;
    let (template, _) = forked(&world).await;
    until_warm(&world, &template, 1).await;
    // Three are free for machines, and the fourth is the warm fork's.
    for name in ["a", "b", "c"] {
        world.running(name).await;
    }
    assert_eq!(warm_forks(&world, &template).await, 1);
    let last = world.running("d").await;
    assert!(world.show(&last).await["network"]["ip"].is_string());
    assert_eq!(warm_forks(&world, &template).await, 0);
    assert_eq!(unrecorded(&world).await, []);
    let refused = world.post("/instances", World::plain("e")).await;
    refused.refused(409, "insufficient_resources");
    world.picture().await;
    world.delete_everything().await;
}

#[tokio::test]
async fn a_fork_whose_warm_fork_gets_no_slot_gets_one_itself() {
    let world = World::with_warm_forks_in(SMALL, 1, LONG).await;
    for name in ["a", "b", "c"] {
        world.running(name).await;
    }
    // The first fork leaves one slot free, which no warm fork may have.
    let (template, _) = forked(&world).await;
    let second = world.fork(&template, json!({ "name": "second" })).await;
    assert_eq!(world.exec(&second, &["counter"]).await, "2");
    assert!(world.show(&second).await["network"]["ip"].is_string());
    world.picture().await;
    world.delete_everything().await;
}

#[tokio::test]
async fn a_fork_does_not_fail_with_the_warm_fork_that_it_waits_for() {
    for panics in [false, true] {
        let world = World::with_warm_forks(1, LONG).await;
        let (template, first) = forked(&world).await;
        if panics {
            world.gate.panic_first("restore");
        } else {
            world.gate.fail_first("restore");
        }
        let second = world.fork(&template, json!({ "name": "second" })).await;
        assert_eq!(world.exec(&second, &["counter"]).await, "2");
        world.gate.open();
        assert_eq!((world.slots_of(&first), world.slots_of(&second)), (1, 1));
        world.delete_everything().await;
        assert_eq!(world.slots_in_use(), 0);
        assert_eq!(world.machines.alive().await, []);
    }
}
