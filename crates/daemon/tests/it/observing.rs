//! What an operator sees: health, capabilities, stats and metrics.

use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn stats_count_what_is_shared_and_saved() {
    let world = World::new().await;
    let template = world.template("template").await;
    let path = format!("/instances/{template}/fork");
    let made = world
        .post(&path, json!({ "name": "f", "count": 3 }))
        .await
        .ok();
    let fork = made["forks"][0]["instance"]["id"].as_str().unwrap();
    let stats = world.get(&format!("/instances/{fork}/stats")).await.ok();
    assert_eq!(stats["memory"]["guest_ram_bytes"], json!(128 << 20));
    assert!(stats["memory"]["shared_with_image_bytes"].as_u64().unwrap() > 0);
    assert_eq!(stats["template"], json!(null));
    let stats = world
        .get(&format!("/instances/{template}/stats"))
        .await
        .ok();
    assert_eq!(stats["template"]["forks"], json!(3));
    let resident = stats["template"]["resident_bytes"].as_u64().unwrap();
    assert!(resident > 0);
    assert_eq!(stats["template"]["saved_bytes"], json!(resident * 2));
    assert_eq!(stats["memory"], json!(null));
    world.delete_everything().await;
}

#[tokio::test]
async fn metrics_tell_states_operations_and_requests() {
    let world = World::new().await;
    let id = world.standby("a").await;
    world
        .call("POST", &format!("/instances/{id}/stop"), "")
        .await;
    let answer = world.get("/metrics").await;
    assert!(answer.content_type.starts_with("text/plain"), "{answer:?}");
    for line in [
        "# TYPE coppice_operations_total counter",
        r#"coppice_instances{state="Standby"}"#,
        r#"coppice_operations_total{operation="standby",outcome="ok",hypervisor="fake"}"#,
        r#"coppice_operations_total{operation="stop",outcome="error",hypervisor="fake"}"#,
        r#"coppice_operation_seconds_bucket{operation="create",hypervisor="fake",le="0.1"}"#,
        r#"path="/instances/{id}/stop",status="409""#,
    ] {
        assert!(answer.text.contains(line), "no {line} in:\n{}", answer.text);
    }
    assert!(
        !answer.text.contains(&id),
        "paths hold names that clients choose"
    );
    world.delete_everything().await;
}

#[tokio::test]
async fn words_that_clients_make_up_are_no_series() {
    let world = World::new().await;
    for method in ["FROBNICATE", "get"] {
        world.call(method, "/made-up-path", "").await;
    }
    let text = world.get("/metrics").await.text;
    for word in ["FROBNICATE", "\"get\"", "made-up-path"] {
        assert!(!text.contains(word), "{word} in:\n{text}");
    }
    assert!(text.contains(r#"method="other""#), "{text}");
}

#[tokio::test]
async fn health_and_capabilities_say_what_is_there() {
    let world = World::new().await;
    assert_eq!(world.get("/health").await.ok()["status"], json!("ok"));
    let caps = world.get("/capabilities").await.ok();
    assert_eq!(
        caps["default_runtime"],
        json!({ "name": "fake", "available": true })
    );
    for feature in ["templates", "share-memory", "fan-out", "exec", "logs"] {
        let features = caps["features"].as_array().unwrap();
        assert!(
            features.contains(&json!(feature)),
            "{feature}: {features:?}"
        );
    }
}
