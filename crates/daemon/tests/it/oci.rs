//! OCI images over HTTP: names, digests, and what keeps an image.

use daemon::store::ImageRecord;
use serde_json::json;

use crate::world::{DIGEST, IMAGE, OTHER_DIGEST, World};

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

#[tokio::test]
async fn an_image_is_found_and_removed_by_its_digest() {
    let world = World::new().await;
    for key in [
        DIGEST.to_owned(),
        format!("plain@{DIGEST}"),
        format!("plain:other@{DIGEST}"),
    ] {
        let shown = world.get(&format!("/images/{key}")).await.ok();
        assert_eq!(shown["digest"], json!(DIGEST), "{key}");
    }
    let mut plain = World::plain("a");
    plain["image"] = json!(DIGEST);
    let made = world.post("/instances", plain).await.ok();
    assert_eq!(made["image"], json!(DIGEST));
    let path = format!("/images/{DIGEST}");
    let answer = world.call("DELETE", &path, "").await;
    answer.refused(409, "conflict");
    world.settle().await;
    world.delete(made["id"].as_str().unwrap()).await;
    assert_eq!(world.call("DELETE", &path, "").await.status, 204);
    world
        .call("DELETE", &path, "")
        .await
        .refused(404, "not_found");
    world.get("/images/plain").await.refused(404, "not_found");
    assert!(!root_disk(&world, DIGEST).exists());
    let unknown = format!("/images/sha256:{}", "0".repeat(64));
    world.get(&unknown).await.refused(404, "not_found");
}

#[tokio::test]
async fn an_image_that_lost_its_name_is_shown_while_used_and_swept_at_a_start() {
    let mut world = World::new().await;
    let id = world.stopped("a").await;
    let other = world.records.image(OTHER_DIGEST).unwrap();
    let gone = world.records.put_image(&other, &[IMAGE.to_owned()]);
    assert!(gone.unwrap().is_empty(), "an instance uses it");
    let listed = world.get("/images").await.ok();
    let nameless = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|image| image["digest"] == json!(DIGEST));
    assert_eq!(nameless.unwrap()["name"], json!(DIGEST));
    world.act(&id, "start").await;
    world.settle().await;
    world.delete(&id).await;
    world.restart().await;
    assert!(!root_disk(&world, DIGEST).exists());
    assert!(root_disk(&world, OTHER_DIGEST).exists());
    let images = world.records.images().unwrap();
    let all_other = |(_, image): &(String, ImageRecord)| image.digest == OTHER_DIGEST;
    assert!(images.iter().all(all_other), "{images:?}");
}

#[tokio::test]
async fn what_is_asked_of_images_is_done_or_refused() {
    let world = World::new().await;
    let asked = json!({ "name": "plain", "platform": "linux/arm64" });
    let answer = world.post("/images", asked).await;
    answer.refused(400, "invalid_platform");
    let asked = json!({ "name": "plain", "tags": { "a": "b" } });
    let answer = world.post("/images", asked).await;
    assert!(answer.refused(400, "Bad Request").contains("tags"));
    let asked = json!({ "name": "plain", "platform": "linux/amd64" });
    assert_eq!(world.post("/images", asked).await.status, 202);
    let listed = world.get("/images?tags[a]=b").await.ok();
    assert_eq!(listed, json!([]), "no image has tags");
    let answer = world.get("/images?page=1").await;
    assert!(answer.refused(400, "Bad Request").contains("page"));
    let path = format!("/images/import?name=plain@{DIGEST}");
    let answer = world.call("POST", &path, "x").await;
    assert!(answer.refused(400, "invalid_name").contains("digest"));
}

fn root_disk(world: &World, digest: &str) -> std::path::PathBuf {
    let hex = digest.strip_prefix("sha256:").unwrap();
    world.layout.images().join(hex).join("rootfs.erofs")
}
