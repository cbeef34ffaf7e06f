//! Many forks in one call (§6).

use e2e::Daemon;
use futures::future::join_all;
use serde_json::{Value, json};

#[tokio::test]
async fn rule_6_without_count_the_answer_is_the_fork_and_with_it_a_list() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.template("a").await;
    let one = daemon
        .fork("a", json!({"name": "f", "target_state": "Stopped"}))
        .await
        .expect(201);
    assert_eq!(one["name"], "f");

    let listed = json!({"name": "g", "count": 1, "target_state": "Stopped"});
    let listed = daemon.fork("a", listed).await.expect(201);
    assert_eq!(keys(&listed), ["forks"]);
    assert_eq!(names(&listed), ["g"], "one keeps its name");

    let many = json!({"name": "web", "count": 3, "target_state": "Stopped"});
    let many = daemon.fork("a", many).await.expect(201);
    assert_eq!(names(&many), ["web-1", "web-2", "web-3"]);
    for entry in many["forks"].as_array().expect("a list") {
        assert_eq!(keys(entry), ["instance"]);
    }
    assert_eq!(daemon.show("a").await["fork_count"], 5);

    for count in [json!(0), json!(1001)] {
        let answer = daemon.fork("a", json!({"name": "h", "count": count})).await;
        assert!(answer.refused(400, "invalid_request").contains("1000"));
    }
    for count in [json!(-1), json!("3"), json!(1.5)] {
        let answer = daemon.fork("a", json!({"name": "h", "count": count})).await;
        assert!(answer.refused(400, "Bad Request").contains("count"));
    }
    let long = "x".repeat(62);
    let answer = daemon.fork("a", json!({"name": long, "count": 10})).await;
    answer.refused(400, "invalid_request");
    assert_eq!(daemon.show("a").await["fork_count"], 5);
}

#[tokio::test]
async fn rule_6_one_taken_name_is_one_entry_and_the_others_are_made() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.template("a").await;
    daemon.sprout("a", "web-2").await;
    let request = json!({"name": "web", "count": 3});
    let answer = daemon.fork("a", request).await.expect(201);
    let entries = answer["forks"].as_array().expect("a list");
    assert_eq!(entries[0]["instance"]["name"], "web-1");
    assert_eq!(keys(&entries[1]), ["error", "name"]);
    assert_eq!(entries[1]["name"], "web-2");
    assert_eq!(entries[1]["error"]["code"], "name_conflict");
    assert!(
        entries[1]["error"]["message"]
            .as_str()
            .is_some_and(|text| text.contains("web-2"))
    );
    assert_eq!(entries[2]["instance"]["name"], "web-3");
    for name in ["web-1", "web-2", "web-3"] {
        assert_eq!(daemon.sh(name, "hostname").await, name);
    }

    // None possible: the call as a whole, and nothing was made.
    let again = json!({"name": "web", "count": 3});
    daemon.fork("a", again).await.refused(409, "name_conflict");
    assert_eq!(daemon.names().await, ["a", "web-1", "web-2", "web-3"]);
    daemon.expect_tidy().await;
}

#[tokio::test]
async fn rule_6_a_hook_that_fails_in_some_forks_fails_those_alone() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.template("a").await;
    let request = json!({
        "name": "f", "count": 4,
        "post_fork": {"command": ["/bin/sh", "-c", "case $(hostname) in f-2|f-4) exit 1;; esac"]},
    });
    let answer = daemon.fork("a", request).await.expect(201);
    let entries = answer["forks"].as_array().expect("a list");
    for (number, entry) in (1..).zip(entries) {
        if number % 2 == 1 {
            assert_eq!(entry["instance"]["state"], "Running", "{entry}");
        } else {
            assert_eq!(entry["name"], format!("f-{number}"), "{entry}");
            assert_eq!(entry["error"]["code"], "post_fork_failed", "{entry}");
        }
    }
    assert_eq!(daemon.names().await, ["a", "f-1", "f-3"]);
    assert_eq!(daemon.show("a").await["fork_count"], 2);
    daemon.expect_tidy().await;
}

#[tokio::test]
async fn rule_6_sixteen_forks_at_once_all_answer() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.template("a").await;
    let forks = daemon.sprouts("a", "f", 16).await;
    let counts = join_all(forks.iter().map(|fork| daemon.count(fork))).await;
    assert_eq!(counts, [2; 16]);
    let hostnames = join_all(forks.iter().map(|fork| daemon.sh(fork, "hostname"))).await;
    let expected: Vec<String> = (1..=16).map(|number| format!("f-{number}")).collect();
    assert_eq!(hostnames, expected);
    assert_eq!(daemon.machines().len(), 16);

    let shown = daemon.get("/instances/a/stats").await.expect(200);
    assert_eq!(shown["template"]["forks"], 16);
    let saved = shown["template"]["saved_bytes"].as_u64().expect("bytes");
    assert!(saved > 64 << 20, "{shown}");
    let one = daemon.get("/instances/f-1/stats").await.expect(200);
    let (shared, private) = (
        &one["memory"]["shared_with_image_bytes"],
        &one["memory"]["private_bytes"],
    );
    assert!(shared.as_u64() > private.as_u64(), "{one}");

    let deletes = join_all(forks.iter().map(|fork| daemon.delete(fork))).await;
    for answer in deletes {
        answer.expect(204);
    }
    daemon.expect_tidy().await;
    assert_eq!(daemon.names().await, ["a"]);
    daemon.delete("a").await.expect(204);
    daemon.expect_tidy().await;
}

fn keys(value: &Value) -> Vec<&str> {
    let object = value.as_object().expect("an object");
    let mut keys: Vec<&str> = object.keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn names(answer: &Value) -> Vec<&str> {
    let entries = answer["forks"].as_array().expect("a list");
    entries
        .iter()
        .map(|entry| entry["instance"]["name"].as_str().unwrap_or_default())
        .collect()
}
