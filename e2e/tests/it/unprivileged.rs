//! A daemon that is not root: no networks, and everything else.

use e2e::Daemon;
use serde_json::{Value, json};

/// A user that no host has.
const NOBODY: u32 = 61_234;

const NETWORK: &[(&str, &str)] = &[("COPPICE_NETWORK", "auto")];

#[tokio::test]
async fn without_root_instances_have_no_network_and_everything_else() {
    let Some(mut daemon) = Daemon::start().await else {
        return;
    };
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can start a daemon as somebody else");
        return;
    }
    daemon.become_user(NOBODY, NETWORK).await;
    let capabilities = daemon.get("/capabilities").await.expect(200);
    assert_eq!(capabilities["network"]["model"], "none");
    assert_is_told(&capabilities["network"]["unavailable_reason"]);

    let id = daemon.boot("plain").await;
    assert_eq!(daemon.show(&id).await["network"]["enabled"], false);
    assert_eq!(daemon.count(&id).await, 1);
    daemon.act(&id, "standby").await.expect(200);
    daemon.act(&id, "restore").await.expect(200);
    assert_eq!(daemon.count(&id).await, 2);
    daemon.act(&id, "standby").await.expect(200);
    for fork in daemon.sprouts(&id, "fork", 2).await {
        assert_eq!(daemon.count(&fork).await, 3);
    }

    let mut request = e2e::plain_create("connected");
    request["network"] = json!({ "enabled": true });
    let refused = daemon.post("/instances", request).await;
    assert_is_told(&Value::from(refused.refused(500, "dependency_missing")));
    assert_eq!(daemon.names().await, ["fork-1", "fork-2", "plain"]);

    let mut doctor = daemon.command();
    doctor
        .args(["doctor", "--json"])
        .envs(NETWORK.iter().copied());
    let output = doctor.output().expect("it runs");
    let findings: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let all = findings.as_array().expect("a list").iter();
    let mut told = all.filter(|one| one["what"] == "network" && one["grade"] != "ok");
    assert_is_told(&Value::from(told.next().expect("a finding").to_string()));
}

/// What is missing, and what to do about it.
#[track_caller]
fn assert_is_told(text: &Value) {
    let text = text.as_str().expect("a reason");
    assert!(text.contains("not root"), "{text}");
    assert!(text.contains("run it as root"), "{text}");
}
