//! Specification §7: what a start finds and mends, beyond the crashes between two steps.

use std::collections::BTreeMap;

use hypervisor::fake::Operation as Deed;
use model::{Intent, State};
use serde_json::json;

use crate::world::{World, names};

#[tokio::test]
async fn everything_is_found_again_with_the_same_machines() {
    let mut world = World::new().await;
    world.running("running").await;
    world.stopped("stopped").await;
    world.standby("standby").await;
    let template = world.template("template").await;
    let path = format!("/instances/{template}/fork");
    world
        .post(&path, json!({ "name": "f", "count": 3 }))
        .await
        .ok();
    let before = world.picture().await;
    for _ in 0..3 {
        world.restart().await;
        assert_eq!(world.picture().await, before);
    }
    let more = world.fork(&template, json!({ "name": "more" })).await;
    assert_eq!(world.exec(&more, &["counter"]).await, "1");
    world.delete_everything().await;
}

#[tokio::test]
async fn a_restart_is_no_change_of_state_and_costs_no_time() {
    let mut world = World::new().await;
    let running = world.running("running").await;
    let template = world.template("template").await;
    let phases = async |world: &World, id: &str| {
        let shown = world.show(id).await;
        let keys: BTreeMap<String, u64> =
            serde_json::from_value(shown["phase_durations_ms"].clone()).unwrap();
        let keys: Vec<String> = keys.into_keys().collect();
        (
            shown["current_phase"].clone(),
            shown["current_phase_since"].clone(),
            keys,
        )
    };
    let before = (
        phases(&world, &running).await,
        phases(&world, &template).await,
    );
    world.restart().await;
    let after = (
        phases(&world, &running).await,
        phases(&world, &template).await,
    );
    assert_eq!(after, before);
    world.delete_everything().await;
}

#[tokio::test]
async fn a_machine_without_a_record_is_ended_and_its_directory_removed() {
    let mut world = World::new().await;
    let id = world.running("a").await;
    world.kill_daemon().await;
    world.records.remove(&id.parse().unwrap()).unwrap();
    assert_eq!(world.host.machine_count(), 1);
    world.start_daemon().await;
    assert_eq!(world.daemon().swept.directories, 1);
    assert_eq!(world.host.machine_count(), 0);
    world.delete_everything().await;
}

#[tokio::test]
async fn a_machine_that_cannot_be_looked_at_is_neither_kept_nor_ended() {
    let mut world = World::new().await;
    let id = world.running("a").await;
    let pid = world.machines.pid(&id).await;
    world.kill_daemon().await;
    for _ in 0..2 {
        world.host.fail_next(Deed::Adopt, "no look");
    }
    world.start_daemon().await;
    let shown = world.show(&id).await;
    assert_eq!(shown["state"], json!("Unknown"));
    assert!(
        shown["state_error"].to_string().contains("no look"),
        "{shown}"
    );
    let stop = format!("/instances/{id}/stop");
    world
        .call("POST", &stop, "")
        .await
        .refused(409, "invalid_state");
    assert_eq!(world.machines.pid(&id).await, pid);
    // The third look sees it, and the request is decided on what it saw.
    world.act(&id, "start").await;
    assert_eq!(world.state(&id).await, "Running");
    assert_eq!(world.machines.pid(&id).await, pid);
    assert_eq!(world.exec(&id, &["counter"]).await, "1");
    world.delete_everything().await;
}

#[tokio::test]
async fn what_could_not_be_looked_at_is_mended_when_it_can() {
    let mut world = World::new().await;
    let id = world.running("a").await;
    world.kill_daemon().await;
    intend(&world, &id, Intent::Delete).await;
    world.host.fail_next(Deed::Adopt, "no look");
    world.start_daemon().await;
    assert_eq!(world.state(&id).await, "Unknown");
    let answer = world
        .call("POST", &format!("/instances/{id}/stop"), "")
        .await;
    answer.refused(404, "not_found");
    world.delete_everything().await;
}

#[tokio::test]
async fn a_clock_that_was_set_back_does_not_hide_that_a_vmm_died() {
    let mut world = World::new().await;
    let id = world.standby("a").await;
    world.kill_daemon().await;
    let late = |record: &mut model::InstanceRecord| {
        let hour = std::time::Duration::from_secs(3600);
        record.stopped_at = record.stopped_at.map(|at| at.plus(hour));
        Ok(())
    };
    world.records.update(&id.parse().unwrap(), late).unwrap();
    world.start_daemon().await;
    assert_eq!(world.act(&id, "restore").await["stopped_at"], json!(null));
    world.kill_daemon().await;
    world.machines.kill(&id).await;
    world.start_daemon().await;
    let shown = world.show(&id).await;
    assert_eq!(shown["state"], json!("Stopped"));
    let message = shown["exit_message"].to_string();
    assert!(message.contains("while the daemon was away"), "{message}");
    // Neither base nor image is left.
    world.picture().await;
    world.delete_everything().await;
}

/// Writes into the record what an operation had written before the daemon was killed.
async fn intend(world: &World, id: &str, intent: Intent) {
    let id = id.parse().unwrap();
    let change = |record: &mut model::InstanceRecord| {
        record.intent = Some(intent);
        Ok(())
    };
    world.records.update(&id, change).unwrap();
}

#[tokio::test]
async fn half_of_a_standby_image_is_removed_and_the_machine_runs_on() {
    let mut world = World::new().await;
    let id = world.running("a").await;
    assert_eq!(world.exec(&id, &["counter"]).await, "1");
    world.kill_daemon().await;
    let image = model::ImageId::from_entropy([9; 16]);
    let dir = world.layout.instance(&id.parse().unwrap()).image(&image);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("state"), "half").unwrap();
    intend(&world, &id, Intent::Standby { image }).await;
    world.start_daemon().await;
    assert_eq!(world.exec(&id, &["counter"]).await, "2");
    assert!(!dir.exists());
    world.picture().await;
    world.delete_everything().await;
}

#[tokio::test]
async fn half_of_a_deletion_is_finished() {
    let mut world = World::new().await;
    for gone in ["memory", "logs", "disk", "run"] {
        let id = world.standby("a").await;
        world.kill_daemon().await;
        intend(&world, &id, Intent::Delete).await;
        let root = world
            .layout
            .instance(&id.parse().unwrap())
            .root()
            .join(gone);
        let _ = std::fs::remove_dir_all(root);
        world.start_daemon().await;
        assert!(world.all_records().is_empty(), "{gone}");
        world.picture().await;
    }
    world.delete_everything().await;
}

#[tokio::test]
async fn half_of_a_fork_is_removed_and_the_template_unlocked() {
    let mut world = World::new().await;
    let template = world.template("template").await;
    let body = json!({ "name": "fork", "target_state": "Standby" });
    let fork = world.fork(&template, body).await;
    world.kill_daemon().await;
    intend(&world, &fork, Intent::BecomeFork).await;
    let dir = world.layout.instance(&fork.parse().unwrap());
    for name in names(&dir.memory()) {
        std::fs::remove_file(dir.memory().join(name).join("manifest.json")).unwrap();
    }
    world.start_daemon().await;
    let shown = world.show(&template).await;
    assert_eq!(
        (&shown["fork_count"], &shown["mem_locked"]),
        (&json!(0), &json!(false))
    );
    world.fork(&template, json!({ "name": "fork" })).await;
    world.picture().await;
    world.delete_everything().await;
}

#[tokio::test]
async fn a_first_boot_without_a_disk_gets_one_and_a_later_one_is_refused() {
    let mut world = World::new().await;
    let id = world.stopped("a").await;
    world.kill_daemon().await;
    let disk = world.layout.instance(&id.parse().unwrap()).disk();
    std::fs::remove_dir_all(&disk).unwrap();
    intend(&world, &id, Intent::Boot).await;
    world.start_daemon().await;
    let shown = world.show(&id).await;
    assert_eq!(shown["state"], json!("Stopped"));
    assert!(
        shown["exit_message"].to_string().contains("disk"),
        "{shown}"
    );
    world.kill_daemon().await;
    let change = |record: &mut model::InstanceRecord| {
        record.intent = Some(Intent::Boot);
        record.started_at = None;
        Ok(())
    };
    world.records.update(&id.parse().unwrap(), change).unwrap();
    world.start_daemon().await;
    world.reach(&id, State::Running).await;
    world.picture().await;
    world.delete_everything().await;
}
