//! Specification §4.2: where two directories can share no bytes they are copied, and the
//! instance says so.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

use model::State;
use serde_json::json;
use tempfile::TempDir;

use crate::world::World;

/// Every host that runs the daemon has this file system beside that of its data.
const ELSEWHERE: &str = "/dev/shm";

/// Moves a directory to another file system, and leaves a link to it.
fn move_away(dir: &Path) -> TempDir {
    let there = tempfile::tempdir_in(ELSEWHERE).unwrap();
    let devices = [dir, there.path()].map(|path| fs::metadata(path).unwrap().dev());
    assert_ne!(
        devices[0], devices[1],
        "these tests need {ELSEWHERE} to be another file system than that of temporary files; set TMPDIR"
    );
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), there.path().join(entry.file_name())).unwrap();
    }
    fs::remove_dir_all(dir).unwrap();
    symlink(there.path(), dir).unwrap();
    there
}

#[tokio::test]
async fn a_blank_disk_on_another_file_system_is_copied() {
    let world = World::new().await;
    let _there = move_away(&world.layout.root().join("disks"));
    let id = world.running("a").await;
    assert_eq!(world.exec(&id, &["counter"]).await, "1");
    world.delete_everything().await;
}

#[tokio::test]
async fn rule_4_2_forks_of_an_image_on_another_file_system_are_copies_and_say_so() {
    let world = World::new().await;
    let template = world.template("template").await;
    let record = world.record(&template);
    let dir = world.layout.instance(&record.id);
    let _there = move_away(&dir.image(record.standby.as_ref().unwrap()));
    for (target, mode) in [
        ("Running", "copied"),
        ("Standby", "copied"),
        ("Stopped", "booted"),
    ] {
        let body = json!({ "name": target.to_lowercase(), "target_state": target });
        let fork = world.fork(&template, body).await;
        let shown = world.show(&fork).await;
        assert_eq!(shown["memory"]["mode"], json!(mode), "{target}");
        assert_eq!(shown["fork_of_template"], json!(template));
        match target {
            "Standby" => drop(world.act(&fork, "restore").await),
            "Stopped" => drop(world.act(&fork, "start").await),
            _ => {}
        }
        world.reach(&fork, State::Running).await;
        assert_eq!(world.exec(&fork, &["counter"]).await, "1");
    }
    world.picture().await;
    world.delete_everything().await;
}

#[tokio::test]
async fn a_stopped_source_on_another_file_system_is_copied() {
    let world = World::new().await;
    let source = world.stopped("source").await;
    let dir = world.layout.instance(&source.parse().unwrap());
    let _there = move_away(&dir.disk());
    let fork = world.fork(&source, json!({ "name": "fork" })).await;
    world.act(&fork, "start").await;
    world.reach(&fork, State::Running).await;
    assert_eq!(world.exec(&fork, &["counter"]).await, "1");
    world.delete_everything().await;
}
