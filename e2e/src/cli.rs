//! The command line as a user runs it.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::Daemon;

/// What a command said.
#[derive(Debug)]
pub struct Spoken {
    /// Its exit code.
    pub code: i32,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
}

impl Spoken {
    /// Checks that it succeeded and gives what it printed, without the last line's end.
    #[track_caller]
    #[expect(clippy::must_use_candidate, reason = "often only the check is wanted")]
    pub fn ok(&self) -> &str {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout.trim_end()
    }

    /// What it printed as JSON.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(self.ok()).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Daemon {
    /// Runs `coppice` to its end.
    pub async fn cli(&self, arguments: &[&str]) -> Spoken {
        let mut command = self.coppice();
        command.args(arguments);
        run(command).await
    }
}

/// Runs a command to its end beside the test's own work.
async fn run(mut command: Command) -> Spoken {
    command.stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("no panic")
        .expect("it starts");
    Spoken {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
