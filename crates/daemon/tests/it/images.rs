//! Specification §4: bytes are safe whatever the lock does.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use model::Compression;
use serde_json::json;

use crate::world::{PAGING, World, names};

fn image_dir(world: &World, id: &str) -> PathBuf {
    let record = world.record(id);
    let image = record.standby.as_ref().or(record.base.as_ref()).unwrap();
    world.layout.instance(&record.id).image(image)
}

/// Every file with its contents.
fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    names(dir)
        .into_iter()
        .map(|name| {
            let bytes = std::fs::read(dir.join(&name)).unwrap();
            (name, bytes)
        })
        .collect()
}

#[tokio::test]
async fn rule_4_1_a_finished_image_never_changes_and_a_new_standby_is_a_new_image() {
    let world = World::new().await;
    let template = world.template("template").await;
    let dir = image_dir(&world, &template);
    let before = contents(&dir);
    let fork = world.fork(&template, json!({ "name": "fork" })).await;
    world.exec(&fork, &["counter"]).await;
    world.act(&fork, "standby").await;
    let first = world.record(&fork).standby.unwrap();
    world.act(&fork, "restore").await;
    world.exec(&fork, &["counter"]).await;
    world.act(&fork, "standby").await;
    assert_ne!(world.record(&fork).standby.unwrap(), first);
    world.act(&fork, "restore").await;
    assert_eq!(world.exec(&fork, &["counter"]).await, "3");
    assert_eq!(contents(&dir), before);
    for name in names(&dir) {
        let mode = std::fs::metadata(dir.join(&name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o222, 0, "{name} can be written to");
    }
    world.delete_everything().await;
}

#[tokio::test]
async fn rule_4_2_every_user_owns_its_bytes() {
    let world = World::new().await;
    let template = world.template("template").await;
    let body = json!({ "name": "fork", "target_state": "Standby" });
    let fork = world.fork(&template, body).await;
    let (theirs, ours) = (image_dir(&world, &template), image_dir(&world, &fork));
    for name in names(&ours).iter().filter(|name| *name != "manifest.json") {
        let inode = |dir: &Path| std::fs::metadata(dir.join(name)).unwrap().ino();
        assert_eq!(inode(&theirs), inode(&ours), "{name} is linked, not copied");
    }
    // As if the lock had a bug.
    std::fs::remove_dir_all(world.layout.instance(&template.parse().unwrap()).root()).unwrap();
    world.act(&fork, "restore").await;
    assert_eq!(world.exec(&fork, &["counter"]).await, "1");
    world.delete(&fork).await;
    world.delete_everything().await;
}

#[tokio::test]
async fn rule_4_3_a_start_sweeps_what_nobody_refers_to_and_says_how_much() {
    let mut world = World::new().await;
    let kept = world.standby("kept").await;
    world.kill_daemon().await;
    let left = world.layout.instances().join("z".repeat(24));
    std::fs::create_dir_all(left.join("memory")).unwrap();
    std::fs::write(left.join("memory/half"), vec![1; 100_000]).unwrap();
    let foreign = world.layout.instances().join("notes of an admin");
    std::fs::create_dir(&foreign).unwrap();
    let draft = image_dir(&world, &kept).with_file_name("y".repeat(24));
    std::fs::create_dir(&draft).unwrap();
    world.start_daemon().await;
    let swept = world.daemon().swept;
    assert_eq!(swept.directories, 1);
    assert!(swept.bytes >= 100_000, "{swept:?}");
    assert!(!left.exists() && !draft.exists());
    assert!(foreign.exists(), "what is not ours is left alone");
    std::fs::remove_dir(foreign).unwrap();
    world.act(&kept, "restore").await;
    world.delete_everything().await;
}

#[tokio::test]
async fn rule_4_6_a_corrupt_image_is_refused_and_never_run() {
    for compression in [Compression::Off, Compression::Zstd { level: 1 }] {
        let world = World::with_compression(compression).await;
        let id = world.standby("a").await;
        let dir = image_dir(&world, &id);
        let pages = names(&dir)
            .into_iter()
            .find(|name| name.ends_with(".pages"))
            .unwrap();
        spoil(&dir.join(&pages));
        let instance = format!("/instances/{id}");
        for (verb, body) in [
            ("restore", json!({})),
            ("promote-template", json!({})),
            ("fork", json!({ "name": "f", "share_memory": true })),
            ("fork", json!({ "name": "f", "target_state": "Running" })),
        ] {
            let answer = world.post(&format!("{instance}/{verb}"), body).await;
            let message = answer.refused(409, "image_mismatch");
            assert!(message.contains(&pages), "{message}");
            assert_eq!(answer.retry.as_deref(), Some("false"), "{verb}");
            assert_eq!(world.state(&id).await, "Standby", "after {verb}");
            assert_eq!(world.host.machine_count(), 0, "after {verb}");
            assert_eq!(world.all_records().len(), 1, "after {verb}");
        }
        world.delete_everything().await;
    }
}

/// What a pager reads it checks by itself; the rest is nobody's but the daemon's.
#[tokio::test]
async fn rule_4_6_state_and_disk_are_checked_whatever_memory_comes_from() {
    let world = World::with_pagers(PAGING).await;
    let template = world.template("template").await;
    let child = world.fork(&template, json!({ "name": "child" })).await;
    assert_eq!(world.exec(&child, &["counter"]).await, "1");
    world.act(&child, "standby").await;
    world.act(&child, "promote-template").await;
    let dir = image_dir(&world, &child);
    let is_read_by_pagers = |name: &String| name.ends_with(".pages") || name.ends_with(".idx");
    let mut checked = names(&dir);
    checked.retain(|name| !is_read_by_pagers(name) && name != "manifest.json");
    assert_eq!(checked, ["disk-0", "state"]);
    for name in checked {
        let path = dir.join(&name);
        let good = std::fs::read(&path).unwrap();
        spoil(&path);
        for backend in ["file", "uffd"] {
            let body = json!({ "name": "f", "memory_backend": backend });
            let answer = world.post(&format!("/instances/{child}/fork"), body).await;
            let message = answer.refused(409, "image_mismatch");
            assert!(message.contains(&name), "{backend}: {message}");
            assert_eq!(world.host.machine_count(), 0, "{name}, {backend}");
            assert_eq!(world.all_records().len(), 2, "{name}, {backend}");
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, good).unwrap();
    }
    let fork = json!({ "name": "f", "memory_backend": "uffd" });
    let fork = world.fork(&child, fork).await;
    assert_eq!(world.exec(&fork, &["counter"]).await, "2");
    world.delete(&fork).await;
    world.delete(&child).await;
    world.delete_everything().await;
}

#[tokio::test]
async fn rule_4_6_an_image_of_another_disk_is_refused_by_the_field() {
    let world = World::new().await;
    let id = world.standby("a").await;
    let digest = crate::world::DIGEST.strip_prefix("sha256:").unwrap();
    let root = world.layout.images().join(digest).join("rootfs.erofs");
    std::fs::write(root, "something else").unwrap();
    let answer = world
        .call("POST", &format!("/instances/{id}/restore"), "")
        .await;
    assert!(
        answer
            .refused(409, "image_mismatch")
            .contains("root_sha256")
    );
    assert_eq!(world.state(&id).await, "Standby");
    world.delete_everything().await;
}

#[tokio::test]
async fn a_template_whose_image_is_gone_is_unknown_and_can_only_be_deleted() {
    let world = World::new().await;
    let id = world.template("a").await;
    std::fs::remove_file(image_dir(&world, &id).join("manifest.json")).unwrap();
    let instance = format!("/instances/{id}");
    world
        .post(&format!("{instance}/fork"), json!({ "name": "f" }))
        .await
        .refused(409, "invalid_state");
    let shown = world.show(&id).await;
    assert_eq!(shown["state"], json!("Unknown"));
    assert!(
        shown["state_error"].as_str().unwrap().contains("manifest"),
        "{shown}"
    );
    for verb in [
        "start",
        "stop",
        "standby",
        "restore",
        "promote-template",
        "demote-template",
    ] {
        let answer = world.call("POST", &format!("{instance}/{verb}"), "").await;
        answer.refused(409, "invalid_state");
    }
    world.delete_everything().await;
}

/// Changes one byte in the middle of a file that cannot be written to.
fn spoil(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}
