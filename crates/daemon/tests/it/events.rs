//! What machines do unasked, and what comes in each other's way.

use guest::ExitStatus;
use hypervisor::fake::Operation as Deed;
use model::State;
use serde_json::json;

use crate::world::{Pretence, World};

fn exited(code: i32) -> ExitStatus {
    ExitStatus {
        code,
        signal: None,
        timed_out: false,
    }
}

#[tokio::test]
async fn a_program_that_ends_leaves_its_code_and_a_stopped_machine() {
    let world = World::new().await;
    let id = world.running("a").await;
    world.machines.agent(&id).exit_program(exited(3));
    world.reach(&id, State::Stopped).await;
    let shown = world.show(&id).await;
    assert_eq!(shown["exit_code"], json!(3));
    assert_eq!(world.host.machine_count(), 0);
    world.act(&id, "start").await;
    world.reach(&id, State::Running).await;
    assert_eq!(
        world.show(&id).await["exit_code"],
        json!(null),
        "a start forgets the last end"
    );
    world.delete_everything().await;
}

#[tokio::test]
async fn a_program_that_ends_while_the_daemon_is_away_leaves_its_code() {
    let mut world = World::new().await;
    let id = world.running("a").await;
    world.kill_daemon().await;
    world.machines.agent(&id).exit_program(exited(4));
    world.start_daemon().await;
    world.reach(&id, State::Stopped).await;
    assert_eq!(world.show(&id).await["exit_code"], json!(4));
    world.delete_everything().await;
}

#[tokio::test]
async fn a_vmm_that_dies_is_noticed_at_once_and_after_a_restart() {
    let mut world = World::new().await;
    let id = world.running("a").await;
    world.machines.kill(&id).await;
    world.reach(&id, State::Stopped).await;
    let message = world.show(&id).await["exit_message"].to_string();
    assert!(message.contains("unexpectedly"), "{message}");
    world.act(&id, "start").await;
    world.reach(&id, State::Running).await;
    world.kill_daemon().await;
    world.machines.kill(&id).await;
    world.start_daemon().await;
    assert_eq!(world.state(&id).await, "Stopped");
    let message = world.show(&id).await["exit_message"].to_string();
    assert!(message.contains("while the daemon was away"), "{message}");
    world.picture().await;
    world.delete_everything().await;
}

#[tokio::test]
async fn a_vmm_that_dies_between_two_looks_at_it_did_not_power_off() {
    let world = World::new().await;
    let id = world.running("a").await;
    world.machines.pretend(&id, Pretence::DiesWhenWaitedFor);
    // Whatever comes next makes the actor look again.
    let path = format!("/instances/{id}");
    world
        .call("PATCH", &path, r#"{"tags":{"a":"b"}}"#)
        .await
        .ok();
    world.reach(&id, State::Stopped).await;
    let message = world.show(&id).await["exit_message"].to_string();
    assert!(message.contains("unexpectedly"), "{message}");
    world.delete_everything().await;
}

#[tokio::test]
async fn a_fork_whose_vmm_dies_still_counts_until_it_is_deleted() {
    let world = World::new().await;
    let template = world.template("template").await;
    let fork = world.fork(&template, json!({ "name": "fork" })).await;
    world.machines.kill(&fork).await;
    world.reach(&fork, State::Stopped).await;
    assert_eq!(world.show(&template).await["fork_count"], json!(1));
    world.act(&fork, "start").await;
    world.reach(&fork, State::Running).await;
    let shown = world.show(&fork).await;
    assert_eq!(shown["memory"]["mode"], json!("booted"));
    assert_eq!(shown["fork_of_template"], json!(template));
    world.delete_everything().await;
}

#[tokio::test]
async fn a_booting_machine_can_be_stopped_and_deleted() {
    let world = World::new().await;
    for verb in ["stop", "delete"] {
        let mut held = world.host.hold_next(Deed::Dial);
        let made = world.post("/instances", World::plain(verb)).await.ok();
        assert!(held.reached().await);
        let id = made["id"].as_str().unwrap();
        assert_eq!(made["state"], json!("Initializing"));
        if verb == "stop" {
            world.act(id, "stop").await;
            assert_eq!(world.state(id).await, "Stopped");
        } else {
            world.delete(id).await;
        }
        assert_eq!(world.host.machine_count(), 0);
    }
    world.picture().await;
    world.delete_everything().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_a_whole_instance() {
    let world = World::new().await;
    let mut held = world.host.hold_next(Deed::Launch);
    {
        let asking = world.post("/instances", World::plain("a"));
        tokio::pin!(asking);
        tokio::select! {
            answer = &mut asking => panic!("{answer:?}"),
            reached = held.reached() => assert!(reached),
        }
    }
    held.release();
    let picture = world.picture().await;
    assert_eq!((picture.instances.len(), picture.machines.len()), (1, 1));
    world.delete_everything().await;
}

#[tokio::test]
async fn of_two_creates_with_one_name_one_is_made() {
    let world = World::new().await;
    let create = || world.post("/instances", World::plain("a"));
    let (first, second) = tokio::join!(create(), create());
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 400], "{first:?} {second:?}");
    let picture = world.picture().await;
    assert_eq!(picture.machines.len(), 1);
    world.delete_everything().await;
}

#[tokio::test]
async fn more_requests_than_may_wait_are_told_to_come_back() {
    let world = World::new().await;
    let id = world.standby("a").await;
    let mut held = world.host.hold_next(Deed::Restore);
    let path = format!("/instances/{id}/restore");
    let first = world.call("POST", &path, "");
    let rest = async {
        assert!(held.reached().await);
        let path = format!("/instances/{id}");
        let asked = (0..65).map(|_| Box::pin(world.call("PATCH", &path, "")));
        // The others wait in the mailbox.
        let (refused, _, _) = futures::future::select_all(asked).await;
        refused.refused(429, "rate_limited");
        held.release();
    };
    let (first, ()) = tokio::join!(first, rest);
    first.ok();
    world.delete_everything().await;
}

#[tokio::test]
async fn a_vmm_that_cannot_be_ended_stays_known() {
    let world = World::new().await;
    let id = world.running("a").await;
    let refuse = || {
        world.host.fail_next(Deed::Quit, "no");
        world.host.fail_next(Deed::Kill, "never");
    };
    refuse();
    let answer = world.call("DELETE", &format!("/instances/{id}"), "").await;
    assert!(answer.refused(500, "internal_error").contains("never"));
    assert_eq!(world.host.machine_count(), 1);
    assert!(
        !world.all_records().is_empty(),
        "a machine that runs has a record"
    );
    world.delete(&id).await;
    assert_eq!(world.host.machine_count(), 0);
    world.delete_everything().await;
}

#[tokio::test]
async fn a_line_that_breaks_is_made_anew() {
    let mut world = World::new().await;
    let id = world.running("a").await;
    world.kill_daemon().await;
    for _ in 0..3 {
        world.host.fail_next(Deed::Dial, "not yet");
    }
    world.start_daemon().await;
    assert_eq!(world.state(&id).await, "Running", "it ran all the time");
    assert_eq!(world.exec(&id, &["counter"]).await, "1");
    world.delete_everything().await;
}

#[tokio::test]
async fn memory_is_held_for_templates_alone() {
    let world = World::new().await;
    let id = world.standby("a").await;
    let held = || {
        let parsed = id.parse().unwrap();
        world
            .daemon()
            .instances
            .published(&parsed)
            .unwrap()
            .held_bytes
    };
    let path = format!("/instances/{id}/fork");
    world.stopped("taken").await;
    let body = json!({ "name": "taken", "share_memory": true });
    world.post(&path, body).await.refused(409, "name_conflict");
    assert_eq!((held(), world.state(&id).await.as_str()), (0, "Standby"));
    world.act(&id, "promote-template").await;
    assert!(held() > 0);
    world.act(&id, "demote-template").await;
    assert_eq!(held(), 0);
    world.delete_everything().await;
}

#[tokio::test]
async fn a_stop_asks_the_program_and_keeps_its_code() {
    let world = World::new().await;
    let id = world.running("a").await;
    let stopped = world.act(&id, "stop").await;
    assert_eq!(stopped["state"], json!("Stopped"));
    assert_eq!(
        stopped["exit_code"],
        json!(128 + 15),
        "the stop signal of the image"
    );
    assert!(world.machines.agent(&id).is_powered_off());
    world.delete_everything().await;
}

#[tokio::test]
async fn a_deletion_asks_the_program_unless_told_not_to() {
    let world = World::new().await;
    for (query, asked) in [
        ("", true),
        ("?graceful_shutdown=true", true),
        ("?graceful_shutdown=false", false),
    ] {
        let id = world.running("a").await;
        let agent = world.machines.agent(&id);
        let path = format!("/instances/{id}{query}");
        assert_eq!(world.call("DELETE", &path, "").await.status, 204);
        assert_eq!(agent.is_powered_off(), asked, "{query}");
    }
    world.delete_everything().await;
}

#[tokio::test]
async fn after_half_a_deletion_nothing_is_done_to_it_but_the_other_half() {
    let world = World::new().await;
    let [twin, id] = [world.stopped("twin").await, world.stopped("a").await];
    world.gate.open();
    world.delete(&twin).await;
    let steps = world.gate.taken().len();
    world.gate.fail_at(steps - 1);
    let instance = format!("/instances/{id}");
    let half = world.call("DELETE", &instance, "").await;
    half.refused(500, "internal_error");
    world.gate.open();
    for (method, path, body) in [
        ("POST", "/start", ""),
        ("POST", "/stop", ""),
        ("POST", "/standby", ""),
        ("POST", "/fork", r#"{"name":"f"}"#),
        ("PATCH", "", r#"{"tags":{"a":"b"}}"#),
    ] {
        let path = format!("{instance}{path}");
        let answer = world.call(method, &path, body).await;
        let message = answer.refused(409, "invalid_state");
        assert!(message.contains("delete"), "{message}");
    }
    world.delete(&id).await;
    world.delete_everything().await;
}
