//! Requests to machines that have just gone to sleep.

use e2e::Daemon;
use serde_json::json;

use crate::network::{WEB, free_port, page, start, web};

/// How often the machine goes to sleep.
const SLEEPS: usize = 3;

async fn routed(daemon: &Daemon) -> String {
    let port = free_port();
    let rule = |hostname: &str, wake: bool| {
        json!({
            "match": { "hostname": hostname, "port": port },
            "target": { "instance": "web", "port": WEB },
            "wake": wake,
        })
    };
    let rules = [rule("woken.test", true), rule("left.test", false)];
    let request = json!({ "name": "web", "rules": rules });
    daemon.post("/ingresses", request).await.expect(201);
    format!("http://127.0.0.1:{port}/")
}

#[tokio::test]
async fn whoever_asks_right_after_a_standby_is_told_of_it_or_wakes_the_machine() {
    let Some(daemon) = start().await else { return };
    let id = web(&daemon, "web", json!({}), json!({})).await;
    let url = routed(&daemon).await;

    // A rule that does not wake says why it does not answer, from the moment that the standby is told.
    for _ in 0..SLEEPS {
        daemon.act(&id, "standby").await.expect(200);
        let (status, text) = page(&url, Some("left.test")).await.expect("an answer");
        assert_eq!(status, 503, "{text}");
        assert!(text.contains("in state Standby"), "{text}");
        let woken = page(&url, Some("woken.test")).await.expect("an answer");
        assert_eq!(woken, (200, "web".to_owned()));
    }
}
