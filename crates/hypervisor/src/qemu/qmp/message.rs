//! Messages of the protocol, and what they say about the machine's status.

use serde::Deserialize;
use serde_json::Value;

use crate::VmStatus;

/// A line from QEMU.
#[derive(Debug, PartialEq)]
pub(super) enum Message {
    /// First line of a connection.
    Greeting,
    /// Answer to the command with this id.
    Answer {
        id: u64,
        result: Result<Value, String>,
    },
    /// Something happened that bears on the status.
    Status(Change),
    /// Anything else.
    Other,
}

/// What an event does to the known status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Resumed,
    Stopped,
    ShutDown,
}

impl Change {
    /// A guest that powers off is stopped after it was shut down; that stop is no pause.
    pub(super) fn apply(self, before: Option<VmStatus>) -> VmStatus {
        match (self, before) {
            (Self::Resumed, _) => VmStatus::Running,
            (Self::ShutDown, _) | (Self::Stopped, Some(VmStatus::Shutdown)) => VmStatus::Shutdown,
            (Self::Stopped, _) => VmStatus::Paused,
        }
    }
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    event: Option<String>,
    #[serde(default, rename = "return")]
    answer: Option<Value>,
    error: Option<Failure>,
    id: Option<u64>,
}

#[derive(Deserialize)]
struct Failure {
    desc: String,
}

/// Reads one line.
pub(super) fn parse(line: &[u8]) -> Result<Message, serde_json::Error> {
    let line: Line = serde_json::from_slice(line)?;
    Ok(match line {
        Line {
            greeting: Some(_), ..
        } => Message::Greeting,
        Line {
            event: Some(event), ..
        } => match event.as_str() {
            "RESUME" => Message::Status(Change::Resumed),
            "STOP" => Message::Status(Change::Stopped),
            "SHUTDOWN" => Message::Status(Change::ShutDown),
            _ => Message::Other,
        },
        Line {
            id: Some(id),
            error: Some(failure),
            ..
        } => Message::Answer {
            id,
            result: Err(failure.desc),
        },
        Line {
            id: Some(id),
            answer,
            ..
        } => Message::Answer {
            id,
            result: Ok(answer.unwrap_or(Value::Null)),
        },
        _ => Message::Other,
    })
}

/// QEMU's name of a run state as our status. States that only its own migration or a watchdog leads to are pauses:
/// the CPUs stand still.
pub(super) fn status(name: &str) -> VmStatus {
    match name {
        "running" => VmStatus::Running,
        "prelaunch" | "inmigrate" => VmStatus::Prelaunch,
        "shutdown" => VmStatus::Shutdown,
        _ => VmStatus::Paused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_lines() {
        let table: &[(&str, Message)] = &[
            (
                r#"{"QMP": {"version": {}, "capabilities": ["oob"]}}"#,
                Message::Greeting,
            ),
            (
                r#"{"return": {}, "id": 3}"#,
                Message::Answer {
                    id: 3,
                    result: Ok(serde_json::json!({})),
                },
            ),
            (
                r#"{"error": {"class": "GenericError", "desc": "no"}, "id": 4}"#,
                Message::Answer {
                    id: 4,
                    result: Err("no".into()),
                },
            ),
            (
                r#"{"event": "STOP", "timestamp": {}}"#,
                Message::Status(Change::Stopped),
            ),
            (
                r#"{"event": "SHUTDOWN", "data": {"guest": true}}"#,
                Message::Status(Change::ShutDown),
            ),
            (r#"{"event": "RTC_CHANGE", "data": {}}"#, Message::Other),
            (r#"{"return": {}}"#, Message::Other),
        ];
        for (line, wanted) in table {
            assert_eq!(parse(line.as_bytes()).unwrap(), *wanted, "{line}");
        }
        assert!(parse(b"no json").is_err());
    }

    #[test]
    fn a_stop_after_shutdown_is_no_pause() {
        let after = Change::ShutDown.apply(Some(VmStatus::Running));
        assert_eq!(Change::Stopped.apply(Some(after)), VmStatus::Shutdown);
        assert_eq!(
            Change::Stopped.apply(Some(VmStatus::Running)),
            VmStatus::Paused
        );
        assert_eq!(Change::Resumed.apply(None), VmStatus::Running);
    }
}
