//! Who may do what, how requests are read, and logs as they are streamed.

use api::client::Client;
use api::instances::LogsQuery;
use e2e::{Daemon, plain_create, until};
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn a_token_is_needed_over_tcp_and_none_over_the_socket() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.get("/instances").await.expect(200);
    daemon
        .call_tcp(Method::GET, "/health", None)
        .await
        .expect(200);
    daemon
        .call_tcp(Method::GET, "/spec.json", None)
        .await
        .expect(200);
    let good = daemon.token(None);
    for token in [None, Some("nonsense"), Some(format!("{good}x").as_str())] {
        for path in [
            "/instances",
            "/instances/a",
            "/images",
            "/capabilities",
            "/instances/a/exec",
            "/metrics",
        ] {
            let answer = daemon.call_tcp(Method::GET, path, token).await;
            answer.refused(401, "Unauthorized");
        }
    }
    daemon
        .call_tcp(Method::GET, "/instances", Some(&good))
        .await
        .expect(200);

    let reader = daemon.token(Some("instance:read,image:read"));
    for (method, path, scope) in [
        (Method::POST, "/instances", Some("instance:write")),
        (Method::DELETE, "/instances/a", Some("instance:delete")),
        (Method::GET, "/instances/a/exec", Some("instance:write")),
        (Method::GET, "/instances/a/cp", Some("instance:write")),
        (Method::POST, "/instances/a/fork", Some("instance:write")),
        (
            Method::POST,
            "/instances/a/promote-template",
            Some("instance:write"),
        ),
        (Method::GET, "/capabilities", Some("resource:read")),
        (Method::GET, "/instances", None),
        (Method::GET, "/images", None),
    ] {
        let answer = daemon.call_tcp(method.clone(), path, Some(&reader)).await;
        match scope {
            Some(scope) => assert_eq!(
                answer.refused(403, "Forbidden"),
                format!("missing required scope: {scope}"),
                "{method} {path}"
            ),
            None => assert_eq!(answer.status, 200, "{method} {path}"),
        }
    }
}

#[tokio::test]
async fn requests_that_do_not_fit_are_refused_by_name() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let with = |field: &str, value: Value| {
        let mut request = plain_create("a");
        request[field] = value;
        request
    };
    for (request, code, named) in [
        (with("colour", json!("red")), "Bad Request", "colour"),
        (with("vcpus", json!("many")), "Bad Request", "vcpus"),
        (with("size", json!("lots")), "invalid_size", "lots"),
        (with("size", json!("1MB")), "invalid_size", "size"),
        (
            with("overlay_size", json!("1TB")),
            "invalid_overlay_size",
            "overlay_size",
        ),
        (with("vcpus", json!(0)), "invalid_request", "vcpus"),
        (
            with("name", json!("Not A Name")),
            "invalid_name",
            "Not A Name",
        ),
        (with("ttl", json!("soon")), "invalid_ttl", "soon"),
        (
            with("expires_at", json!("2001-01-01T00:00:00Z")),
            "invalid_expires_at",
            "expires_at",
        ),
        (
            with("platform", json!("linux/mips")),
            "invalid_platform",
            "linux/mips",
        ),
        (json!({"image": "busybox"}), "Bad Request", "name"),
    ] {
        let answer = daemon.post("/instances", request.clone()).await;
        let message = answer.refused(400, code);
        assert!(
            message.contains(named),
            "{message:?} names {named}: {request}"
        );
    }
    let missing = daemon
        .post("/instances", with("image", json!("no-such-image")))
        .await;
    assert!(missing.refused(404, "not_found").contains("no-such-image"));
    assert_eq!(daemon.names().await, Vec::<String>::new());
}

#[tokio::test]
async fn requests_about_instances_are_refused_by_name_too() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    // Names clash on create as public clients expect it: 400, not 409.
    daemon
        .post("/instances", plain_create("a"))
        .await
        .expect(201);
    daemon
        .post("/instances", plain_create("a"))
        .await
        .refused(400, "already_exists");
    for (path, body, named) in [
        ("/instances/a/start", json!({"colour": 1}), "colour"),
        (
            "/instances/a/standby",
            json!({"compression": {"level": 1}}),
            "enabled",
        ),
        (
            "/instances/a/fork",
            json!({"name": "f", "colour": 1}),
            "colour",
        ),
        ("/instances/a/fork", json!({}), "name"),
        (
            "/instances/a/fork",
            json!({"name": "f", "target_state": "Asleep"}),
            "target_state",
        ),
    ] {
        let answer = daemon.post(path, body).await;
        assert!(
            answer.refused(400, "Bad Request").contains(named),
            "{path}: {answer:?}"
        );
    }
    daemon
        .get("/instances/a/wait")
        .await
        .refused(400, "Bad Request");
    daemon
        .get("/instances/a/wait?state=Running&timeout=x")
        .await
        .refused(400, "invalid_timeout");
    daemon.get("/no/such/path").await.refused(404, "not_found");
    assert_eq!(daemon.names().await, ["a"]);
}

#[tokio::test]
async fn instances_are_found_by_id_by_name_and_by_a_prefix_that_fits_one() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let made = daemon
        .post("/instances", plain_create("a"))
        .await
        .expect(201);
    let id = made["id"].as_str().expect("an id");
    assert!(
        id.len() == 24
            && id
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()),
        "{id}"
    );
    for key in [id, "a", &id[..12]] {
        assert_eq!(daemon.show(key).await["id"], id);
    }
    daemon.act("a", "stop").await.expect(200);
    let twins = json!({"name": "twin", "count": 40});
    daemon.fork("a", twins).await.expect(201);
    // With 41 ids two begin with the same of 26 letters.
    let letter = ('a'..='z').map(String::from);
    let mut ambiguous = 0;
    for prefix in letter.filter(|letter| letter != "a") {
        let answer = daemon.get(&format!("/instances/{prefix}")).await;
        match answer.status {
            409 => {
                answer.refused(409, "ambiguous");
                ambiguous += 1;
            }
            200 => assert!(answer.text("id").starts_with(&prefix)),
            _ => {
                answer.refused(404, "not_found");
            }
        }
    }
    assert!(ambiguous > 0);
}

#[tokio::test]
async fn logs_are_lines_as_json_strings_and_follow_what_comes() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let mut request = plain_create("a");
    let program = "mkfifo /dev/shm/ask; for i in 1 2 3; do echo \"line $i\"; done; echo 'quote \" and \u{fc}'; \
                   while :; do read -r word < /dev/shm/ask && echo \"$word\"; done";
    request["cmd"] = json!(["/bin/sh", "-c", program]);
    daemon.post("/instances", request).await.expect(201);
    daemon.wait_for("a", "Running").await;
    until("the program to write", async || {
        let text = daemon.get("/instances/a/logs").await.expect(200);
        text.as_str()
            .is_some_and(|text| text.contains("quote"))
            .then_some(())
    })
    .await;
    let raw = daemon.get("/instances/a/logs?tail=2").await;
    assert_eq!(raw.headers["content-type"], "text/event-stream");
    assert_eq!(raw.headers["cache-control"], "no-cache");
    assert_eq!(raw.headers["x-accel-buffering"], "no");
    assert_eq!(
        raw.body,
        Value::String("data: \"line 3\"\n\ndata: \"quote \\\" and \u{fc}\"\n\n".to_owned())
    );

    let query = LogsQuery {
        tail: Some(1),
        follow: Some(true),
        source: None,
    };
    let mut stream = daemon.client().logs("a", &query).await.expect("a stream");
    assert_eq!(
        stream.next().await.expect("a line").as_deref(),
        Some("quote \" and \u{fc}")
    );
    for word in ["first", "second"] {
        daemon.sh("a", &format!("echo {word} > /dev/shm/ask")).await;
        assert_eq!(stream.next().await.expect("a line").as_deref(), Some(word));
    }
    // It goes on over standby and ends with the instance.
    daemon.act("a", "standby").await.expect(200);
    daemon.act("a", "restore").await.expect(200);
    daemon.sh("a", "echo third > /dev/shm/ask").await;
    assert_eq!(
        stream.next().await.expect("a line").as_deref(),
        Some("third")
    );
    daemon.delete("a").await.expect(204);
    while stream.next().await.expect("an end").is_some() {}
}

#[tokio::test]
async fn each_log_source_has_what_it_says() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.boot("a").await;
    daemon.act("a", "standby").await.expect(200);
    let log = async |source: &str| {
        let answer = daemon
            .get(&format!("/instances/a/logs?source={source}"))
            .await;
        answer.expect(200).as_str().unwrap_or_default().to_owned()
    };
    assert!(log("coppice").await.contains("standby"));
    assert_eq!(
        log("hypeman").await,
        log("coppice").await,
        "the name that public clients know"
    );
    daemon
        .get("/instances/a/logs?source=else")
        .await
        .refused(400, "Bad Request");
    daemon
        .get("/instances/nobody/logs")
        .await
        .refused(404, "not_found");
}

#[tokio::test]
async fn what_the_typed_client_shows_is_what_is_there() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let id = daemon.template("a").await;
    let fork = daemon.sprout("a", "f").await;
    let token = daemon.token(None);
    let address = daemon.url().parse().expect("an address");
    let client = Client::new(address, Some(&token)).expect("a client");
    let template = client.get_instance("a").await.expect("a");
    assert_eq!(
        (
            template.id.as_str(),
            template.fork_count,
            template.mem_locked
        ),
        (id.as_str(), 1, true)
    );
    let shown = client.get_instance("f").await.expect("f");
    assert_eq!((shown.id, shown.fork_of_template), (fork, Some(id)));
    let refused = client.demote_template("a").await.expect_err("locked");
    assert_eq!(
        (refused.status(), refused.code()),
        (Some(409), Some("invalid_state"))
    );
    assert!(client.capabilities().await.is_ok());
    let metrics = daemon.get("/metrics").await.expect(200);
    assert!(
        metrics
            .as_str()
            .is_some_and(|text| text.contains("coppice_"))
    );
}
