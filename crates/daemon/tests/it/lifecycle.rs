//! Specification §2: every operation in every state.

use hypervisor::VmStatus;
use hypervisor::fake::Operation as Deed;
use serde_json::json;

use crate::world::{Pretence, World};

const STATES: [&str; 9] = [
    "Stopped",
    "Created",
    "Initializing",
    "Running",
    "Paused",
    "Shutdown",
    "Standby",
    "Template",
    "Unknown",
];

/// One row for each operation; one letter for each state in the order of [`STATES`]:
/// `Y` accepted, `n` no-op, `.` refused.
const TABLE: [(&str, &str); 13] = [
    ("start", "Y.nn....."),
    ("start with overrides", "Y........"),
    ("stop", "n.YYYY..."),
    ("standby", "...Y..n.."),
    ("restore", "..nn..Y.."),
    ("promote-template", "......Y.."),
    ("demote-template", ".......Y."),
    ("fork", "Y.....YY."),
    ("fork from running", "Y..Y..YY."),
    ("exec", "...Y....."),
    ("cp", "...Y....."),
    ("stat", "...Y....."),
    ("delete", "YYYYYYYYY"),
];

/// Brings a new instance into `state`; its id.
async fn bring(world: &World, name: &str, state: &str) -> String {
    let pretend = |id: &str, pretence| world.machines.pretend(id, pretence);
    match state {
        "Stopped" => world.stopped(name).await,
        "Running" => world.running(name).await,
        "Standby" => world.standby(name).await,
        "Template" => world.template(name).await,
        "Initializing" => {
            let mut held = world.host.hold_next(Deed::Dial);
            let made = world.post("/instances", World::plain(name)).await.ok();
            assert!(held.reached().await);
            // The guest does not come up as long as this test runs.
            Box::leak(Box::new(held));
            made["id"].as_str().unwrap().to_owned()
        }
        other => {
            let id = world.running(name).await;
            pretend(
                &id,
                match other {
                    "Created" => Pretence::Status(VmStatus::Prelaunch),
                    "Paused" => Pretence::Status(VmStatus::Paused),
                    "Shutdown" => Pretence::Status(VmStatus::Shutdown),
                    _ => Pretence::Silent,
                },
            );
            // A refused operation makes the daemon look.
            let look = world
                .call("POST", &format!("/instances/{id}/start"), "")
                .await;
            look.refused(409, "invalid_state");
            id
        }
    }
}

fn request(operation: &str, id: &str) -> (&'static str, String, String) {
    let post = |verb: &str, body: String| ("POST", format!("/instances/{id}/{verb}"), body);
    match operation {
        "start with overrides" => post("start", json!({ "cmd": ["other"] }).to_string()),
        "fork" => post(
            "fork",
            json!({ "name": format!("f-{}", &id[..8]) }).to_string(),
        ),
        "fork from running" => post(
            "fork",
            json!({ "name": format!("f-{}", &id[..8]), "from_running": true }).to_string(),
        ),
        "exec" | "cp" => ("GET", format!("/instances/{id}/{operation}"), String::new()),
        "stat" => ("GET", format!("/instances/{id}/stat?path=/"), String::new()),
        "delete" => ("DELETE", format!("/instances/{id}"), String::new()),
        verb => post(verb, String::new()),
    }
}

async fn row(operation: &str, letters: &str) {
    let world = World::new().await;
    for (number, (state, letter)) in STATES.iter().zip(letters.chars()).enumerate() {
        let id = bring(&world, &format!("i{number}"), state).await;
        assert_eq!(world.state(&id).await, *state, "before {operation}");
        let (method, path, body) = request(operation, &id);
        let before = world.record(&id);
        let answer = world.call(method, &path, &body).await;
        let label = format!("{operation} in {state}: {answer:?}");
        match letter {
            // A websocket that is not asked for as one: the state is right.
            'Y' if matches!(operation, "exec" | "cp") => {
                assert!(
                    answer.refused(400, "Bad Request").contains("websocket"),
                    "{label}"
                );
            }
            'Y' | 'n' => assert!((200..300).contains(&answer.status), "{label}"),
            _ => {
                assert!(!answer.refused(409, "invalid_state").is_empty(), "{label}");
                assert_eq!(answer.retry.as_deref(), Some("false"), "{label}");
            }
        }
        if letter != 'Y' {
            assert_eq!(world.state(&id).await, *state, "{label}");
            let after = world.record(&id);
            assert_eq!(
                (before.intent, before.spec),
                (after.intent, after.spec),
                "{label}"
            );
        }
    }
}

macro_rules! rows {
    ($($name:ident = $operation:literal),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                let (operation, letters) = TABLE.iter().find(|row| row.0 == $operation).unwrap();
                row(operation, letters).await;
            }
        )*

        #[test]
        fn no_row_is_left_out() {
            assert_eq!([$($operation),*], TABLE.map(|row| row.0));
        }
    };
}

rows! {
    start = "start",
    start_with_overrides = "start with overrides",
    stop = "stop",
    standby = "standby",
    restore = "restore",
    promote = "promote-template",
    demote = "demote-template",
    fork = "fork",
    fork_from_running = "fork from running",
    exec = "exec",
    cp = "cp",
    stat = "stat",
    delete = "delete",
}
