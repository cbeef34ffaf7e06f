//! The image's program: how it starts, how it ends, what stays of it.

use e2e::{Daemon, plain_create};
use serde_json::{Value, json};

#[tokio::test]
async fn a_program_that_ends_leaves_a_stopped_machine_and_its_exit_code() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    for (name, line) in [
        ("well", "true"),
        ("ill", "echo a last word; exit 42"),
        ("killed", "kill -9 $$"),
    ] {
        let mut request = plain_create(name);
        request["cmd"] = json!(["/bin/sh", "-c", line]);
        let made = daemon.post("/instances", request).await.expect(201);
        assert_eq!(made["exit_code"], Value::Null);
    }
    for (name, code) in [("well", 0), ("ill", 42), ("killed", 137)] {
        daemon.wait_for(name, "Stopped").await;
        let shown = daemon.show(name).await;
        assert_eq!(shown["exit_code"], code, "{shown}");
        assert_ne!(shown["stopped_at"], Value::Null);
    }
    let log = daemon.get("/instances/ill/logs").await.expect(200);
    assert_eq!(log, Value::String("data: \"a last word\"\n\n".to_owned()));
    daemon.expect_tidy().await;
}

#[tokio::test]
async fn a_program_that_cannot_be_run_says_so() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let mut request = plain_create("a");
    request["cmd"] = json!(["/no/such/program"]);
    daemon.post("/instances", request).await.expect(201);
    daemon.wait_for("a", "Stopped").await;
    let shown = daemon.show("a").await;
    assert_eq!(shown["exit_code"], 127, "{shown}");
    assert!(
        shown["exit_message"]
            .as_str()
            .is_some_and(|text| text.contains("/no/such/program")),
        "{shown}"
    );
}

#[tokio::test]
async fn stop_and_start_keep_the_disk_and_nothing_else() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let mut request = plain_create("a");
    request["env"] = json!({"WHO": "me"});
    let id = daemon.boot_as(request).await;
    assert_eq!(daemon.count("a").await, 1);
    daemon
        .sh("a", "echo kept > /srv/file; echo lost > /dev/shm/file")
        .await;
    let machine_id = daemon.sh("a", "cat /etc/machine-id").await;
    let before = daemon.machine(&id);

    let stopped = daemon.act("a", "stop").await.expect(200);
    assert_eq!(stopped["state"], "Stopped");
    assert_eq!(daemon.machines(), []);
    daemon
        .call(
            reqwest::Method::PATCH,
            "/instances/a",
            Some(json!({"env": {"LATER": "1"}})),
        )
        .await
        .expect(200);
    daemon.act("a", "start").await.expect(200);
    daemon.wait_for("a", "Running").await;
    daemon.wait_for_counter("a").await;
    assert_ne!(daemon.machine(&id), before);
    assert_eq!(daemon.count("a").await, 1, "memory is new");
    assert_eq!(
        daemon
            .sh("a", "cat /srv/file; ls /dev/shm; echo $WHO $LATER")
            .await,
        "kept\nanswer\nask\nme 1"
    );
    assert_eq!(
        daemon.sh("a", "cat /etc/machine-id").await,
        machine_id,
        "the same machine"
    );
}

#[tokio::test]
async fn start_with_a_new_command_keeps_it() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.boot("a").await;
    daemon.act("a", "stop").await.expect(200);
    let request = json!({"cmd": ["/bin/sh", "-c", "exit 5"]});
    daemon.post("/instances/a/start", request).await.expect(200);
    daemon.wait_for("a", "Stopped").await;
    assert_eq!(daemon.show("a").await["exit_code"], 5);
    daemon.act("a", "start").await.expect(200);
    assert_eq!(
        daemon.show("a").await["exit_code"],
        Value::Null,
        "a new life"
    );
    daemon.wait_for("a", "Stopped").await;
    assert_eq!(daemon.show("a").await["exit_code"], 5);
}

#[tokio::test]
async fn a_program_can_end_well_when_it_is_asked_to_stop() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let mut request = plain_create("a");
    // A signal ends `wait`, not a program in the foreground.
    request["cmd"] = json!([
        "/bin/sh",
        "-c",
        "trap 'echo asked; sync; exit 9' TERM; mkfifo /dev/shm/never; touch /dev/shm/ready; cat /dev/shm/never & wait"
    ]);
    daemon.post("/instances", request).await.expect(201);
    daemon.wait_for("a", "Running").await;
    daemon
        .sh("a", "until [ -e /dev/shm/ready ]; do usleep 10000; done")
        .await;
    let stopped = daemon.act("a", "stop").await.expect(200);
    assert_eq!(
        (&stopped["state"], &stopped["exit_code"]),
        (&json!("Stopped"), &json!(9))
    );
    let log = daemon.get("/instances/a/logs").await.expect(200);
    assert_eq!(log, Value::String("data: \"asked\"\n\n".to_owned()));
}

#[tokio::test]
async fn an_instance_goes_when_its_time_is_up() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let id = daemon.boot("a").await;
    let patch = async |change: Value| {
        daemon
            .call(reqwest::Method::PATCH, "/instances/a", Some(change))
            .await
    };
    let shown = patch(json!({"ttl": "1h"})).await.expect(200);
    assert_ne!(shown["expires_at"], Value::Null);
    let shown = patch(json!({"ttl": "0s"})).await.expect(200);
    assert_eq!(shown["expires_at"], Value::Null);
    patch(json!({"ttl": "soon"}))
        .await
        .refused(400, "invalid_ttl");
    patch(json!({"expires_at": "2001-01-01T00:00:00Z"}))
        .await
        .refused(400, "invalid_expires_at");
    patch(json!({"ttl": "10ms"})).await.expect(200);
    e2e::until("it to be gone", async || {
        (daemon.get(&format!("/instances/{id}")).await.status == 404).then_some(())
    })
    .await;
    assert_eq!(daemon.machines(), []);
    daemon.expect_tidy().await;
}
