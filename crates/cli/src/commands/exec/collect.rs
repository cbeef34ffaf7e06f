//! `exec --json`: the output of a command as one document.

use api::client::{ExecEvent, ExecSession};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::stream::{Wants, feed};
use crate::failure::Failure;
use crate::printer::Printer;

/// Most output that is kept in memory.
const MAX_OUTPUT_BYTES: usize = 64 * 1024 * 1024;

#[derive(Debug, Serialize)]
struct Collected {
    exit_code: i32,
    stdout: String,
    stderr: String,
}

pub(super) async fn collect(
    printer: &Printer,
    session: ExecSession,
    wants: Wants,
) -> Result<i32, Failure> {
    let ExecSession { input, mut output } = session;
    let resized = signal(SignalKind::window_change())
        .map_err(|error| Failure::local("cannot watch signals", error))?;
    let feed = feed(input, wants, resized);
    tokio::pin!(feed);
    let mut fed = false;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let exit_code = loop {
        let event = tokio::select! {
            event = output.next() => event?,
            done = &mut feed, if !fed => {
                fed = true;
                done?;
                continue;
            }
        };
        match event {
            ExecEvent::Stdout(data) => stdout.extend_from_slice(&data),
            ExecEvent::Stderr(data) => stderr.extend_from_slice(&data),
            ExecEvent::Exit(code) => break code,
        }
        if stdout.len() + stderr.len() > MAX_OUTPUT_BYTES {
            return Err(Failure::plain("the output is too long for --json"));
        }
    };
    let collected = Collected {
        exit_code,
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    };
    printer.show(&collected, |_| String::new())?;
    Ok(exit_code)
}
