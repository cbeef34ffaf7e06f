//! Memory images that are compressed: who decides, what is shown, and that nothing else changes.

use model::Compression;
use serde_json::{Value, json};

use crate::world::{IMAGE, OVERLAYS, PAGING, RAW, World};

fn zstd() -> Value {
    json!({ "compression": { "enabled": true } })
}

fn off() -> Value {
    json!({ "compression": { "enabled": false } })
}

impl World {
    /// Puts a running instance in standby; what is said of its memory image.
    async fn sleep(&self, id: &str, body: Value) -> Value {
        let path = format!("/instances/{id}/standby");
        let shown = self.post(&path, body).await.ok();
        assert_eq!(shown["state"], "Standby");
        shown["memory_image"].clone()
    }

    async fn running_with(&self, name: &str, policy: Value) -> String {
        let mut body = Self::plain(name);
        body["snapshot_policy"] = policy;
        let made = self.post("/instances", body).await.ok();
        let id = made["id"].as_str().unwrap().to_owned();
        self.reach(&id, model::State::Running).await;
        id
    }
}

#[tokio::test]
async fn a_standby_is_compressed_if_that_is_asked_for_and_wakes_like_any_other() {
    let world = World::new().await;
    let id = world.running("a").await;
    assert_eq!(world.exec(&id, &["counter"]).await, "1");
    let plain = world.sleep(&id, json!({})).await;
    assert_eq!(plain["encoding"], "plain");
    assert_eq!(plain["stored_bytes"], plain["memory_bytes"]);
    world.act(&id, "restore").await;
    assert_eq!(world.show(&id).await["memory_image"], Value::Null);
    assert_eq!(world.exec(&id, &["counter"]).await, "2");

    // What lies below stays as it is.
    let mixed = world.sleep(&id, zstd()).await;
    assert_eq!(mixed["encoding"], "mixed");
    assert_eq!(mixed["layers"], 2);
    let again = world.act(&id, "standby").await;
    assert_eq!(again["memory_image"], mixed, "it is asleep already");
    let path = format!("/instances/{id}/standby");
    let refused = world.post(&path, zstd()).await;
    let words = refused.refused(409, "invalid_state");
    assert!(words.contains("restore it first"), "{words}");
    world.act(&id, "restore").await;
    assert_eq!(world.exec(&id, &["counter"]).await, "3");

    let other = world.running("other").await;
    let zstd = world.sleep(&other, zstd()).await;
    assert_eq!(zstd["encoding"], "zstd");
    assert!(
        zstd["stored_bytes"].as_u64() < zstd["memory_bytes"].as_u64(),
        "{zstd}"
    );
    world.delete_everything().await;
}

#[tokio::test]
async fn the_request_goes_before_the_policy_and_that_before_the_server() {
    let world = World::with_compression(Compression::Zstd { level: 1 }).await;
    let encoding = async |name: &str, policy: Value, body: Value| {
        let id = world.running_with(name, policy).await;
        let image = world.sleep(&id, body).await;
        image["encoding"].as_str().unwrap().to_owned()
    };
    assert_eq!(encoding("server", Value::Null, json!({})).await, "zstd");
    assert_eq!(encoding("policy", off(), json!({})).await, "plain");
    assert_eq!(encoding("request", off(), zstd()).await, "zstd");
    assert_eq!(encoding("against", Value::Null, off()).await, "plain");
    // A delay of nothing is what happens anyway.
    let delay = json!({ "compression_delay": "0s" });
    assert_eq!(encoding("delay", Value::Null, delay).await, "zstd");
}

#[tokio::test]
async fn a_policy_is_shown_and_inherited_and_no_concern_of_a_capture() {
    let world = World::new().await;
    let policy = json!({
        "compression": { "enabled": true, "algorithm": "zstd", "level": 3 },
        "standby_compression_delay": "0s",
    });
    let id = world.running_with("a", policy).await;
    let kept = json!({ "compression": { "enabled": true, "algorithm": "zstd", "level": 3 } });
    assert_eq!(world.show(&id).await["snapshot_policy"], kept);
    let asleep = json!({ "name": "asleep", "from_running": true, "target_state": "Standby" });
    let asleep = world.fork(&id, asleep).await;
    let shown = world.show(&asleep).await;
    assert_eq!(shown["snapshot_policy"], kept);
    assert_eq!(
        shown["memory_image"]["encoding"], "plain",
        "nobody waits for a capture to be compressed"
    );
    world.sleep(&id, json!({})).await;
    world.act(&id, "promote-template").await;
    let fork = world.fork(&id, json!({ "name": "fork" })).await;
    let image = world.sleep(&fork, json!({})).await;
    assert_eq!(image["encoding"], "zstd", "{image}");
    assert_eq!(
        world.show(&world.running("b").await).await["snapshot_policy"],
        Value::Null
    );
    world.delete_everything().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_what_can() {
    let world = World::new().await;
    let id = world.running("a").await;
    let standby = format!("/instances/{id}/standby");
    let compression = |more: Value| {
        let mut compression = json!({ "enabled": true });
        for (key, value) in more.as_object().unwrap() {
            compression[key] = value.clone();
        }
        compression
    };
    for (more, words) in [
        (json!({ "algorithm": "lz4" }), "writes zstd"),
        (json!({ "level": 0 }), "1 to 19"),
        (json!({ "level": 20 }), "1 to 19"),
        (json!({ "enabled": false, "level": -7 }), "1 to 19"),
    ] {
        let compression = compression(more);
        let body = json!({ "compression": compression });
        let message = world.post(&standby, body.clone()).await;
        let message = message.refused(400, "invalid_snapshot_compression");
        assert!(message.contains(words), "{message}");
        let mut create = World::plain("b");
        create["snapshot_policy"] = body;
        let message = world.post("/instances", create).await;
        let message = message.refused(400, "invalid_snapshot_policy");
        assert!(message.contains(words), "{message}");
    }
    for (delay, words) in [("soon", "duration"), ("5m", "nothing to delay")] {
        let body = json!({ "compression_delay": delay });
        let message = world.post(&standby, body).await;
        let message = message.refused(400, "invalid_compression_delay");
        assert!(message.contains(words), "{message}");
        let mut create = World::plain("b");
        create["snapshot_policy"] = json!({ "standby_compression_delay": delay });
        let message = world.post("/instances", create).await;
        let message = message.refused(400, "invalid_snapshot_policy");
        assert!(message.contains(words), "{message}");
    }
    assert_eq!(world.state(&id).await, "Running");
    // What is switched off is not written by anything.
    let off = json!({ "compression": { "enabled": false, "algorithm": "lz4" } });
    assert_eq!(world.sleep(&id, off).await["encoding"], "plain");
    world.delete_everything().await;
}

#[tokio::test]
async fn forks_of_a_compressed_template_get_a_pager_where_the_vmm_can_and_files_elsewhere() {
    for (vmm, backend) in [(RAW, "uffd"), (OVERLAYS, "file")] {
        let world = World::with_pagers(PAGING).await;
        let template = world.running_on("template", vmm).await;
        assert_eq!(world.exec(&template, &["counter"]).await, "1");
        world.sleep(&template, zstd()).await;
        let asleep = world.show(&template).await;
        let promoted = world.act(&template, "promote-template").await;
        assert_eq!(promoted["memory_image"], asleep["memory_image"]);
        assert_eq!(promoted["image"], IMAGE);
        for name in ["one", "two"] {
            let fork = world.fork(&template, json!({ "name": name })).await;
            assert_eq!(world.show(&fork).await["memory_backend"], backend);
            assert_eq!(world.exec(&fork, &["counter"]).await, "2");
            // Whoever wants files gets them unpacked.
            let file = json!({ "name": format!("{name}-file"), "memory_backend": "file" });
            let file = world.fork(&template, file).await;
            assert_eq!(world.exec(&file, &["counter"]).await, "2");
        }
        world.delete_everything().await;
    }
}

#[tokio::test]
async fn a_restarted_daemon_says_the_same() {
    let mut world = World::new().await;
    let id = world.running("a").await;
    let image = world.sleep(&id, zstd()).await;
    world.restart().await;
    assert_eq!(world.show(&id).await["memory_image"], image);
    world.delete_everything().await;
}
