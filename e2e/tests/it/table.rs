//! Every operation in every state that can be held still, against the table of the specification (§2).

use e2e::{Daemon, plain_create};
use reqwest::Method;
use serde_json::{Value, json};

/// What an operation must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// 200, or 101 where a websocket is opened; nothing changes.
    Fine,
    /// 409 `invalid_state` with `x-should-retry: false`.
    No,
    /// As `No`, and the message gives the number of live forks and how to list them.
    Locked,
}

use Want::{Fine, Locked, No};

/// The operations that change nothing in the states where they are tried, in the order of the columns.
const OPERATIONS: [&str; 16] = [
    "start",
    "start-cmd",
    "stop",
    "standby",
    "restore",
    "promote-template",
    "demote-template",
    "fork",
    "fork-shared",
    "exec",
    "cp",
    "stat",
    "delete",
    "logs",
    "stats",
    "patch",
];

async fn ask(daemon: &Daemon, id: &str, operation: &str) -> e2e::Answer {
    let path = |rest: &str| format!("/instances/{id}/{rest}");
    match operation {
        "start-cmd" => daemon.post(&path("start"), json!({"cmd": ["true"]})).await,
        "fork" => daemon.fork(id, json!({"name": "never"})).await,
        "fork-shared" => {
            let request = json!({"name": "never", "share_memory": true});
            daemon.fork(id, request).await
        }
        "exec" | "cp" => daemon.knock(&path(operation)).await,
        "stat" => daemon.get(&path("stat?path=/")).await,
        "delete" => daemon.delete(id).await,
        "logs" => daemon.get(&path("logs?source=coppice")).await,
        "stats" => daemon.get(&path("stats")).await,
        "patch" => {
            let path = format!("/instances/{id}");
            daemon
                .call(Method::PATCH, &path, Some(json!({"ttl": "1h"})))
                .await
        }
        action => daemon.act(id, action).await,
    }
}

/// Tries every operation that `wants` has an answer for; none of them may change the state.
async fn check(daemon: &Daemon, id: &str, state: &str, wants: [Option<Want>; 16]) {
    for (operation, want) in OPERATIONS.into_iter().zip(wants) {
        let Some(want) = want else { continue };
        assert_eq!(daemon.state(id).await, state, "before {operation}");
        let answer = ask(daemon, id, operation).await;
        let context = format!("{operation} in {state}: {answer:?}");
        match want {
            Fine => assert!(matches!(answer.status, 200 | 101), "{context}"),
            No | Locked => {
                assert_eq!(
                    (answer.status, answer.code()),
                    (409, "invalid_state"),
                    "{context}"
                );
                assert_eq!(answer.should_retry(), Some("false"), "{context}");
            }
        }
        if want == Locked {
            assert!(answer.message().contains("1 live fork"), "{context}");
            assert!(answer.message().contains("fork_of"), "{context}");
        }
        if want == No {
            assert!(answer.message().contains(state), "{context}");
        }
    }
    assert_eq!(daemon.state(id).await, state, "after all");
    let waited = daemon
        .get(&format!("/instances/{id}/wait?state={state}&timeout=1s"))
        .await;
    if state == "Unknown" {
        waited.refused(400, "invalid_state");
    } else {
        assert_eq!(
            waited.expect(200),
            json!({"state": state, "timed_out": false})
        );
    }
}

/// Short for the rows below.
const F: Option<Want> = Some(Fine);
const N: Option<Want> = Some(No);
const L: Option<Want> = Some(Locked);
/// It would change the state: checked where that is wanted.
const X: Option<Want> = None;

//                                  start cmd stop stby rest prom demo fork fksh exec cp stat del logs stats patch
const INITIALIZING: [Option<Want>; 16] = [F, N, X, N, F, N, N, N, N, N, N, N, X, F, F, F];
const RUNNING: [Option<Want>; 16] = [F, N, X, X, F, N, N, N, N, F, F, F, X, F, F, F];
const STANDBY: [Option<Want>; 16] = [N, N, N, F, X, X, N, X, X, N, N, N, X, F, F, F];
const TEMPLATE: [Option<Want>; 16] = [N, N, N, N, N, N, X, X, X, N, N, N, X, F, F, F];
const LOCKED: [Option<Want>; 16] = [L, L, N, L, L, N, L, X, X, N, N, N, L, F, F, F];
const STOPPED: [Option<Want>; 16] = [X, X, F, N, N, N, N, X, N, N, N, N, X, F, F, F];
const UNKNOWN: [Option<Want>; 16] = [N, N, N, N, N, N, N, N, N, N, N, N, X, F, F, F];

#[tokio::test]
async fn every_operation_in_every_state() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let made = daemon
        .post("/instances", plain_create("a"))
        .await
        .expect(201);
    let id = made["id"].as_str().expect("an id");
    assert_eq!(
        made["state"], "Initializing",
        "create answers when the VMM runs"
    );
    check(&daemon, id, "Initializing", INITIALIZING).await;

    daemon.wait_for(id, "Running").await;
    check(&daemon, id, "Running", RUNNING).await;
    daemon
        .fork(
            id,
            json!({"name": "never", "from_running": true, "share_memory": true}),
        )
        .await
        .refused(400, "invalid_request");

    assert_state(&daemon.act(id, "standby").await.expect(200), "Standby");
    check(&daemon, id, "Standby", STANDBY).await;

    assert_state(
        &daemon.act(id, "promote-template").await.expect(200),
        "Template",
    );
    check(&daemon, id, "Template", TEMPLATE).await;

    let stopped = json!({"name": "f", "target_state": "Stopped"});
    let fork = daemon.fork(id, stopped).await.expect(201);
    assert_state(&fork, "Stopped");
    check(&daemon, id, "Template", LOCKED).await;
    daemon
        .fork("f", json!({"name": "never", "share_memory": true}))
        .await
        .conflict();
    daemon.delete("f").await.expect(204);

    assert_state(
        &daemon.act(id, "demote-template").await.expect(200),
        "Standby",
    );
    assert_state(&daemon.act(id, "restore").await.expect(200), "Running");
    assert_state(&daemon.act(id, "stop").await.expect(200), "Stopped");
    check(&daemon, id, "Stopped", STOPPED).await;

    assert_state(&daemon.act(id, "start").await.expect(200), "Initializing");
    daemon.delete(id).await.expect(204);
    daemon
        .get(&format!("/instances/{id}"))
        .await
        .refused(404, "not_found");
    daemon.expect_tidy().await;
    assert_eq!(daemon.names().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_booting_machine_can_be_stopped_and_deleted() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let made = daemon
        .post("/instances", plain_create("a"))
        .await
        .expect(201);
    assert_state(&made, "Initializing");
    assert_state(&daemon.act("a", "stop").await.expect(200), "Stopped");
    assert_state(&daemon.act("a", "start").await.expect(200), "Initializing");
    daemon.delete("a").await.expect(204);
    daemon.expect_tidy().await;
    assert_eq!(daemon.machines(), []);
}

#[tokio::test]
async fn a_template_without_its_image_is_unknown_and_can_only_be_deleted() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let id = daemon.template("a").await;
    std::fs::remove_file(daemon.image(&id).join("manifest.json")).expect("its manifest");
    until_unknown(&daemon, &id).await;
    let shown = daemon.show(&id).await;
    assert!(
        shown["state_error"]
            .as_str()
            .is_some_and(|why| why.contains("manifest")),
        "{shown}"
    );
    check(&daemon, &id, "Unknown", UNKNOWN).await;
    daemon.delete(&id).await.expect(204);
    daemon.expect_tidy().await;
}

/// State is derived from facts: the next operation that looks at them shows it.
async fn until_unknown(daemon: &Daemon, id: &str) {
    daemon.act(id, "restore").await.conflict();
    daemon.wait_for(id, "Unknown").await;
}

#[track_caller]
fn assert_state(instance: &Value, state: &str) {
    assert_eq!(instance["state"], state, "{instance}");
}
