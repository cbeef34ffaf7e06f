//! Hot pages of templates whose forks map the memory: recorded, mapped ahead, and shared with forks on pagers.

use std::time::Duration;

use daemon::instances::PagerPolicy;
use hypervisor::fake::Operation;
use serde_json::{Value, json};

use crate::guests::{client, run};
use crate::world::{PAGING, PATIENCE, World};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

/// A template, with one counted in its memory.
async fn template(world: &World) -> String {
    let source = world.running("template").await;
    assert_eq!(world.exec(&source, &["counter"]).await, "1");
    world.act(&source, "standby").await;
    world.act(&source, "promote-template").await;
    source
}

async fn fork(world: &World, template: &str, name: &str) -> String {
    world.fork(template, json!({ "name": name })).await
}

async fn stats(world: &World, id: &str) -> Value {
    world.get(&format!("/instances/{id}/stats")).await.ok()
}

async fn recordings(world: &World, template: &str) -> u64 {
    let found = stats(world, template).await;
    found["template"]["hot_recordings"].as_u64().unwrap()
}

/// Waits until the statistics of an instance fit.
async fn until(world: &World, id: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let reached = async {
        loop {
            let seen = stats(world, id).await;
            if fits(&seen) {
                return seen;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.unwrap()
}

async fn until_recorded(world: &World, template: &str, count: u64) -> Value {
    let fits = |seen: &Value| seen["template"]["hot_recordings"] == count;
    until(world, template, fits).await
}

/// Waits until a fork is being recorded.
async fn until_recording(world: &World, fork: &str) {
    until(world, fork, |seen| seen["hot_pages"]["recording"] == true).await;
}

/// As the exec route does when a command has given its result.
async fn run_a_command(world: &World, id: &str) {
    assert_eq!(world.exec(id, &["counter"]).await, "2");
    let parsed = id.parse().unwrap();
    let instances = std::sync::Arc::clone(&world.daemon().instances);
    let noted = async move { instances.executed(&parsed) };
    world.daemon().runtime().spawn(noted).await.unwrap();
}

/// A template of which one fork was recorded.
async fn recorded(world: &World) -> (String, String) {
    let template = template(world).await;
    let first = fork(world, &template, "first").await;
    until_recording(world, &first).await;
    run_a_command(world, &first).await;
    until_recorded(world, &template, 1).await;
    (template, first)
}

async fn patch(world: &World, template: &str, prefetch: &str) {
    let body = json!({ "prefetch": prefetch }).to_string();
    let path = format!("/instances/{template}");
    world.call("PATCH", &path, &body).await.ok();
}

#[tokio::test]
async fn what_the_first_fork_touches_is_mapped_before_the_next_one_touches_it() {
    let world = World::new().await;
    world.pagers.swap();
    let (template, first) = recorded(&world).await;
    let of_template = stats(&world, &template).await["template"].clone();
    let hot_bytes = of_template["hot_bytes"].as_u64().unwrap();
    assert!(hot_bytes > 0);
    let found = until(&world, &first, |seen| {
        seen["hot_pages"]["recording"] == false
    });
    assert_eq!(found.await["hot_pages"]["hot_bytes"], 0);

    let mut dial = world.host.hold_next(Operation::Dial);
    let mapped_first = async {
        assert!(dial.reached().await);
        let found = until(&world, "second", |seen| {
            seen["hot_pages"]["ahead_bytes"] == hot_bytes
        });
        assert_eq!(found.await["hot_pages"]["hot_bytes"], hot_bytes);
        dial.release();
    };
    let (second, ()) = tokio::join!(fork(&world, &template, "second"), mapped_first);
    assert_eq!(world.exec(&second, &["counter"]).await, "2");
    let memory = stats(&world, &second).await["memory"].clone();
    assert_eq!(memory["private_bytes"], 0, "{memory}");
    for fork in [first, second] {
        world.delete(&fork).await;
    }
    let image = world.record(&template).standby.unwrap();
    let memory = world.layout.instance(&template.parse().unwrap()).memory();
    let hint = memory.join(format!("{image}.hot_pages"));
    assert!(hint.exists());
    world.act(&template, "demote-template").await;
    assert!(!hint.exists(), "hot pages are a template's");
}

#[tokio::test]
async fn a_recording_ends_with_the_first_command_of_a_client() {
    let world = World::with_pagers(PAGING).await;
    let template = template(&world).await;
    let fork = fork(&world, &template, "a").await;
    until_recording(&world, &fork).await;
    let client = client(&world).await;
    let (printed, _, _) = run(&client, &["counter"], None).await;
    assert_eq!(printed.trim(), "2");
    until_recorded(&world, &template, 1).await;
}

/// A server that is woken by requests is never given a command.
#[tokio::test]
async fn a_fork_that_is_given_no_command_is_recorded_for_a_while() {
    let world = World::with_pagers(PagerPolicy {
        record_for: Duration::ZERO,
        ..PAGING
    })
    .await;
    let template = template(&world).await;
    fork(&world, &template, "mapped").await;
    until_recorded(&world, &template, 1).await;
    patch(&world, &template, "record").await;
    assert_eq!(recordings(&world, &template).await, 0);
    let paged = json!({ "name": "paged", "memory_backend": "uffd" });
    world.fork(&template, paged).await;
    until_recorded(&world, &template, 1).await;
}

#[tokio::test]
async fn prefetch_means_the_same_for_forks_that_map() {
    let world = World::new().await;
    let (template, _) = recorded(&world).await;
    patch(&world, &template, "off").await;
    let none = fork(&world, &template, "none").await;
    run_a_command(&world, &none).await;
    let found = stats(&world, &none).await["hot_pages"].clone();
    let nothing = json!({ "recording": false, "hot_bytes": 0, "ahead_bytes": 0, "ahead_us": 0 });
    assert_eq!(found, nothing);
    assert_eq!(recordings(&world, &template).await, 1, "kept for later");
    patch(&world, &template, "record").await;
    assert_eq!(recordings(&world, &template).await, 0);
    let mut forks = Vec::new();
    for (name, count) in [("a", 1), ("b", 2), ("c", 3)] {
        let fork = fork(&world, &template, name).await;
        until_recording(&world, &fork).await;
        run_a_command(&world, &fork).await;
        until_recorded(&world, &template, count).await;
        forks.push(fork);
    }
    let enough = fork(&world, &template, "enough").await;
    assert_eq!(stats(&world, &enough).await["hot_pages"], nothing);
    // Where all is in memory, the guest of a fork that nobody has prepared maps it by itself as fast.
    patch(&world, &template, "on").await;
    let by_itself = fork(&world, &template, "by-itself").await;
    run_a_command(&world, &by_itself).await;
    assert_eq!(stats(&world, &by_itself).await["hot_pages"], nothing);
}

#[tokio::test]
async fn every_eighth_fork_is_recorded_again() {
    let world = World::new().await;
    world.pagers.swap();
    let (template, _) = recorded(&world).await;
    for nth in 1..=7 {
        let fork = fork(&world, &template, &format!("fork-{nth}")).await;
        let fits = |seen: &Value| {
            seen["hot_pages"]["recording"] == true || seen["hot_pages"]["hot_bytes"] != 0
        };
        let found = until(&world, &fork, fits).await;
        assert_eq!(found["hot_pages"]["recording"], nth == 7, "{nth}: {found}");
        run_a_command(&world, &fork).await;
    }
    until_recorded(&world, &template, 2).await;
}

#[tokio::test]
async fn a_recording_serves_forks_of_both_kinds() {
    let world = World::with_pagers(PAGING).await;
    let (template, first) = recorded(&world).await;
    assert_eq!(stats(&world, &first).await["pager"], Value::Null);
    let paged = json!({ "name": "paged", "memory_backend": "uffd" });
    let paged = world.fork(&template, paged).await;
    let (pages, record) = world.pagers.order(&paged);
    let known = stats(&world, &template).await["template"]["hot_bytes"].clone();
    assert_eq!(known, json!(pages.unwrap().page_count() * 4096));
    assert!(!record);
    let found = stats(&world, &paged).await;
    assert_eq!(found["hot_pages"], Value::Null, "its pager has it: {found}");
    assert_eq!(found["pager"]["hot_bytes"], known);
}

#[tokio::test]
async fn hot_pages_that_cannot_be_had_cost_no_fork() {
    let world = World::new().await;
    world.pagers.swap();
    let template = template(&world).await;
    let mut look = world.host.hold_next(Operation::Touched);
    world.host.fail_next(Operation::Touched, "no page tables");
    let lost = fork(&world, &template, "lost").await;
    assert!(look.reached().await);
    until_recording(&world, &lost).await;
    look.release();
    run_a_command(&world, &lost).await;
    until(&world, &lost, |seen| {
        seen["hot_pages"]["recording"] == false
    })
    .await;
    let first = fork(&world, &template, "first").await;
    until_recording(&world, &first).await;
    run_a_command(&world, &first).await;
    until_recorded(&world, &template, 1).await;
    let mut slow = world.host.hold_next(Operation::Enter);
    let second = fork(&world, &template, "second").await;
    assert!(slow.reached().await);
    assert_eq!(
        world.exec(&second, &["counter"]).await,
        "2",
        "nobody waits for it"
    );
    slow.release();
    world.host.fail_next(Operation::Enter, "no page tables");
    let third = fork(&world, &template, "third").await;
    assert_eq!(world.exec(&third, &["counter"]).await, "2");
    // One that ends before its first command leaves no half of a recording.
    patch(&world, &template, "record").await;
    let ended = fork(&world, &template, "ended").await;
    until_recording(&world, &ended).await;
    world.act(&ended, "standby").await;
    assert_eq!(recordings(&world, &template).await, 0);
    assert_eq!(stats(&world, &ended).await["hot_pages"], Value::Null);
}

#[tokio::test]
async fn forks_that_were_prepared_have_had_their_part() {
    let world = World::with_warm_forks(1, LONG).await;
    let template = template(&world).await;
    let warm = |seen: &Value| seen["template"]["warm_forks"] == 1;
    fork(&world, &template, "first").await;
    until(&world, &template, warm).await;
    // Nothing was known when it was prepared: it is recorded from then on.
    let taken = fork(&world, &template, "taken").await;
    until_recording(&world, &taken).await;
    until(&world, &template, warm).await;
    run_a_command(&world, &taken).await;
    until_recorded(&world, &template, 1).await;
    // The next one was prepared before that, the one after it was not.
    fork(&world, &template, "next").await;
    until(&world, &template, warm).await;
    let served = fork(&world, &template, "served").await;
    until(&world, &served, |seen| seen["hot_pages"]["hot_bytes"] != 0).await;
    assert_eq!(world.exec(&served, &["counter"]).await, "2");
}
