//! The HTTP edge: what is wrong with a request is said in its answer, in one form.

use model::State;
use serde_json::json;

use crate::world::{DIGEST, IMAGE, World};

#[tokio::test]
async fn what_does_not_fit_is_named() {
    let world = World::new().await;
    let id = world.stopped("a").await;
    let fork = format!("/instances/{id}/fork");
    let start = format!("/instances/{id}/start");
    let standby = format!("/instances/{id}/standby");
    let instance = format!("/instances/{id}");
    for (method, path, body, named) in [
        (
            "POST",
            "/instances",
            r#"{"name":"x","image":"y","colour":"red"}"#,
            "colour",
        ),
        ("POST", "/instances", r#"{"name":"x"}"#, "image"),
        (
            "POST",
            "/instances",
            r#"{"name":"x","image":"y","vcpus":"two"}"#,
            "vcpus",
        ),
        (
            "POST",
            "/instances",
            r#"{"name":"x","image":"y","network":{"mac":""}}"#,
            "network.mac",
        ),
        ("POST", "/instances", "", "name"),
        ("POST", "/instances", "{", "EOF"),
        ("POST", &standby, "{} {}", "trailing"),
        ("POST", "/instances", "[]", "invalid"),
        (
            "POST",
            &fork,
            r#"{"name":"f","target":"Running"}"#,
            "target",
        ),
        (
            "POST",
            &fork,
            r#"{"name":"f","target_state":"Awake"}"#,
            "target_state",
        ),
        ("POST", &fork, r#"{"name":"f","count":-1}"#, "count"),
        ("POST", &start, r#"{"entrypoint":"sh"}"#, "entrypoint"),
        ("POST", &standby, r#"{"compression":true}"#, "compression"),
        ("PATCH", &instance, r#"{"name":"b"}"#, "name"),
        (
            "POST",
            "/images",
            r#"{"name":"x","credential":{}}"#,
            "credential",
        ),
        ("GET", "/instances?page=2", "", "page"),
        ("DELETE", &format!("{instance}?force=true"), "", "force"),
        (
            "GET",
            &format!("{instance}/wait?state=Sleeping"),
            "",
            "Sleeping",
        ),
        ("GET", &format!("{instance}/wait"), "", "state"),
        ("GET", &format!("{instance}/stat"), "", "path"),
        ("GET", &format!("{instance}/logs?tail=all"), "", "invalid"),
    ] {
        let answer = world.call(method, path, body).await;
        let message = answer.refused(400, "Bad Request");
        assert!(message.contains(named), "{method} {path} {body}: {message}");
    }
    assert_eq!(world.state(&id).await, "Stopped");
    world.delete_everything().await;
}

#[tokio::test]
async fn values_that_cannot_be_have_codes_of_their_own() {
    let world = World::new().await;
    for (field, value, code) in [
        ("name", json!("Upper"), "invalid_name"),
        ("name", json!(""), "invalid_name"),
        ("image", json!("::"), "invalid_name"),
        ("size", json!("1KB"), "invalid_size"),
        ("size", json!("much"), "invalid_size"),
        ("overlay_size", json!("1TB"), "invalid_overlay_size"),
        ("vcpus", json!(0), "invalid_request"),
        ("vcpus", json!(1000), "invalid_request"),
        ("ttl", json!("soon"), "invalid_ttl"),
        (
            "expires_at",
            json!("2001-01-01T00:00:00Z"),
            "invalid_expires_at",
        ),
        ("platform", json!("windows/amd64"), "invalid_platform"),
        ("hypervisor", json!("other"), "invalid_request"),
        ("network", json!({ "allow": ["here"] }), "invalid_request"),
        ("skip_guest_agent", json!(true), "invalid_request"),
        ("env", json!({ "A=B": "" }), "invalid_request"),
        ("tags", json!({ "": "" }), "invalid_request"),
        ("post_fork", json!({ "command": [] }), "invalid_request"),
        (
            "post_fork",
            json!({ "command": ["x"], "timeout": "1h" }),
            "invalid_request",
        ),
    ] {
        let mut body = World::plain("a");
        body[field] = value;
        let answer = world.post("/instances", body.clone()).await;
        let message = answer.refused(400, code);
        assert!(!message.is_empty(), "{body}");
    }
    let mut body = World::plain("a");
    body["ttl"] = json!("1h");
    body["expires_at"] = json!("2999-01-01T00:00:00Z");
    world
        .post("/instances", body)
        .await
        .refused(400, "invalid_request");
    let mut body = World::plain("a");
    body["image"] = json!("nobody/knows:this");
    world
        .post("/instances", body)
        .await
        .refused(404, "not_found");
    assert!(world.all_records().is_empty());
}

#[tokio::test]
async fn an_empty_body_is_an_empty_object() {
    let world = World::new().await;
    let id = world.stopped("a").await;
    let start = format!("/instances/{id}/start");
    for body in ["{}", " \n"] {
        world.call("POST", &start, body).await.ok();
        world.reach(&id, State::Running).await;
    }
    world
        .call("POST", &format!("/instances/{id}/standby"), "")
        .await
        .ok();
    world
        .call("PATCH", &format!("/instances/{id}"), "")
        .await
        .ok();
    world.delete_everything().await;
}

#[tokio::test]
async fn a_body_without_end_is_refused() {
    let world = World::new().await;
    let body = format!(r#"{{"name":"{}"}}"#, "x".repeat(2 << 20));
    let answer = world.call("POST", "/instances", &body).await;
    assert!(answer.refused(400, "Bad Request").contains("longer than"));
}

#[tokio::test]
async fn instances_are_found_by_id_name_and_unique_prefix() {
    let world = World::new().await;
    let one = world.stopped("one").await;
    for key in [&one, "one", &one[..6]] {
        assert_eq!(world.show(key).await["id"], json!(one), "{key}");
    }
    world
        .get("/instances/nobody")
        .await
        .refused(404, "not_found");
    world.get("/instances/%20").await.refused(404, "not_found");
    // Enough of them that two begin with the same letter.
    let mut ids = vec![one];
    let letter = loop {
        let id = world
            .fork("one", json!({ "name": format!("f{}", ids.len()) }))
            .await;
        let letter = id[..1].to_owned();
        let known = ids.iter().any(|other| other.starts_with(&letter));
        ids.push(id);
        if known {
            break letter;
        }
    };
    let answer = world.get(&format!("/instances/{letter}")).await;
    answer.refused(409, "ambiguous");
    assert_eq!(answer.retry.as_deref(), Some("false"));
    // A name goes before a prefix.
    world.fork("one", json!({ "name": letter })).await;
    assert_eq!(world.show(&letter).await["name"], json!(letter));
    world.delete_everything().await;
}

#[tokio::test]
async fn a_taken_name_is_400_for_a_create_and_409_for_a_fork() {
    let world = World::new().await;
    let id = world.stopped("a").await;
    let create = world.post("/instances", World::plain("a")).await;
    create.refused(400, "already_exists");
    let fork = world
        .post(&format!("/instances/{id}/fork"), json!({ "name": "a" }))
        .await;
    fork.refused(409, "name_conflict");
    assert_eq!(world.all_records().len(), 1);
    world.delete_everything().await;
}

#[tokio::test]
async fn a_created_instance_shows_what_it_is_made_of() {
    let world = World::new().await;
    let mut body = World::plain("a");
    body["env"] = json!({ "A": "1" });
    body["tags"] = json!({ "t": "v" });
    let made = world.post("/instances", body).await;
    assert_eq!(made.status, 201);
    let made = made.json();
    for (field, value) in [
        ("name", json!("a")),
        ("image", json!(IMAGE)),
        ("hypervisor", json!("fake")),
        ("platform", json!("linux/amd64")),
        ("vcpus", json!(1)),
        ("env", json!({ "A": "1" })),
        ("tags", json!({ "t": "v" })),
        ("fork_count", json!(0)),
        ("mem_locked", json!(false)),
        ("fork_of_template", json!(null)),
        ("has_snapshot", json!(false)),
    ] {
        assert_eq!(made[field], value, "{field}");
    }
    let id = made["id"].as_str().unwrap();
    world.reach(id, State::Running).await;
    let started = world.machines.agent(id).started().unwrap();
    assert_eq!(started.argv, ["/bin/program", "--serve"]);
    let env: Vec<(&str, &str)> = started
        .env
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    assert_eq!(env, [("A", "1"), ("FROM", "image"), ("PATH", "/bin")]);
    assert_eq!(world.record(id).spec.image_digest, DIGEST);
    world.delete_everything().await;
}

#[tokio::test]
async fn start_takes_new_words_for_good() {
    let world = World::new().await;
    let id = world.stopped("a").await;
    let start = format!("/instances/{id}/start");
    world.post(&start, json!({ "cmd": ["--other"] })).await.ok();
    world.reach(&id, State::Running).await;
    let argv = || world.machines.agent(&id).started().unwrap().argv;
    assert_eq!(argv(), ["/bin/program", "--other"]);
    world.act(&id, "stop").await;
    world
        .post(&start, json!({ "entrypoint": ["/bin/sh"] }))
        .await
        .ok();
    world.reach(&id, State::Running).await;
    assert_eq!(argv(), ["/bin/sh", "--other"]);
    world.delete_everything().await;
}

#[tokio::test]
async fn patch_changes_what_is_given_and_keeps_the_rest() {
    let world = World::new().await;
    let mut body = World::plain("a");
    body["env"] = json!({ "A": "1", "B": "1" });
    body["tags"] = json!({ "t": "v" });
    let made = world.post("/instances", body).await.ok();
    let id = made["id"].as_str().unwrap();
    world.reach(id, State::Running).await;
    let instance = format!("/instances/{id}");
    let patch =
        async |body: serde_json::Value| world.call("PATCH", &instance, &body.to_string()).await;
    let shown = patch(json!({ "env": { "B": "2" } })).await.ok();
    assert_eq!(shown["env"], json!({ "A": "1", "B": "2" }));
    assert_eq!(shown["tags"], json!({ "t": "v" }));
    let shown = patch(json!({ "tags": { "n": "w" }, "ttl": "1h" }))
        .await
        .ok();
    assert_eq!(shown["tags"], json!({ "n": "w" }));
    assert!(shown["expires_at"].is_string());
    let shown = patch(json!({ "ttl": "0s" })).await.ok();
    assert_eq!(shown["expires_at"], json!(null));
    patch(json!({ "ttl": "1h", "expires_at": "2999-01-01T00:00:00Z" }))
        .await
        .refused(400, "invalid_request");
    assert_eq!(
        world.exec(id, &["env"]).await,
        "A=1\nB=1\nFROM=image\nPATH=/bin"
    );
    world.act(id, "stop").await;
    world.act(id, "start").await;
    world.reach(id, State::Running).await;
    assert_eq!(
        world.exec(id, &["env"]).await,
        "A=1\nB=2\nFROM=image\nPATH=/bin"
    );
    world.delete_everything().await;
}

#[tokio::test]
async fn unknown_paths_and_methods_answer_in_the_common_form() {
    let world = World::new().await;
    for (method, path) in [
        ("GET", "/nothing"),
        ("POST", "/instances/a/b/c"),
        ("GET", "/"),
    ] {
        let message = world.call(method, path, "").await.refused(404, "not_found");
        assert!(message.contains(path), "{message}");
    }
    for (method, path) in [
        ("DELETE", "/instances"),
        ("PUT", "/instances/a"),
        ("GET", "/instances/a/fork"),
    ] {
        let message = world
            .call(method, path, "")
            .await
            .refused(405, "method_not_allowed");
        assert!(message.contains(path), "{message}");
    }
}
