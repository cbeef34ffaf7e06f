//! OCI images over HTTP: names, digests, and what keeps an image.

use serde_json::json;

use crate::world::{DIGEST, IMAGE, World};

#[tokio::test]
async fn images_are_listed_found_and_kept_while_they_are_used() {
    let world = World::new().await;
    let listed = world.get("/images").await.ok();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    for key in ["plain", "plain:latest", &IMAGE.replace('/', "%2F")] {
        assert_eq!(
            world.get(&format!("/images/{key}")).await.ok()["digest"],
            json!(DIGEST)
        );
    }
    world.get("/images/nothing").await.refused(404, "not_found");
    let asked = world.post("/images", json!({ "name": "plain" })).await;
    assert_eq!(
        (asked.status, &asked.json()["status"]),
        (202, &json!("ready"))
    );
    let id = world.stopped("a").await;
    let answer = world.call("DELETE", "/images/plain", "").await;
    answer.refused(409, "conflict");
    world.delete(&id).await;
    assert_eq!(world.call("DELETE", "/images/plain", "").await.status, 204);
    let dir = world
        .layout
        .images()
        .join(DIGEST.strip_prefix("sha256:").unwrap());
    assert!(!dir.exists());
    let import = world
        .call("POST", "/images/import?name=x", "this is no archive")
        .await;
    import.refused(400, "invalid_request");
}
