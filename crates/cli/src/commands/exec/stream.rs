//! Passes the streams of a command through, both ways at once: a command that
//! is not read from stops reading, so neither side may wait for the other.

use std::io;

use api::client::{ClientError, ExecEvent, ExecInput, ExecOutput, ExecSession};
use api::exec::MAX_CHUNK_BYTES;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::terminal::{self, RawMode};
use crate::failure::Failure;

/// What of the user's side is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wants {
    pub(super) stdin: bool,
    pub(super) terminal: bool,
}

/// Runs until the command has ended, and gives its exit code.
pub(super) async fn stream(session: ExecSession, wants: Wants) -> Result<i32, Failure> {
    let ExecSession { input, mut output } = session;
    let signals = || -> io::Result<(Signal, Signal, Signal)> {
        Ok((
            signal(SignalKind::window_change())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ))
    };
    let (resized, mut terminated, mut hung_up) =
        signals().map_err(|error| Failure::local("cannot watch signals", error))?;
    // Held until the end of this function, so that the terminal is given back
    // on every way out.
    let _raw = match wants.stdin && wants.terminal {
        true => Some(
            RawMode::enter().map_err(|error| Failure::local("cannot take the terminal", error))?,
        ),
        false => None,
    };
    let feed = feed(input, wants, resized);
    tokio::pin!(feed);
    let show = show(&mut output);
    tokio::pin!(show);
    let mut fed = false;
    loop {
        tokio::select! {
            code = &mut show => return code,
            done = &mut feed, if !fed => {
                fed = true;
                done?;
            }
            _ = terminated.recv() => return Err(Failure::plain("terminated")),
            _ = hung_up.recv() => return Err(Failure::plain("the terminal is gone")),
        }
    }
}

/// Writes what comes out, until the exit code comes.
async fn show(output: &mut ExecOutput) -> Result<i32, Failure> {
    let mut stdout = tokio::io::stdout();
    let mut stderr = tokio::io::stderr();
    loop {
        match output.next().await? {
            ExecEvent::Stdout(data) => {
                stdout.write_all(&data).await?;
                stdout.flush().await?;
            }
            ExecEvent::Stderr(data) => {
                stderr.write_all(&data).await?;
                stderr.flush().await?;
            }
            ExecEvent::Exit(code) => return Ok(code),
        }
    }
}

/// Sends stdin and new sizes of the terminal. A server that takes no more is
/// not an error: it is about to say why, or how the command ended.
pub(super) async fn feed(
    mut input: ExecInput,
    wants: Wants,
    mut resized: Signal,
) -> Result<(), Failure> {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; MAX_CHUNK_BYTES];
    let mut open = wants.stdin;
    if !open && !wants.terminal && input.end().await.is_err() {
        return Ok(());
    }
    loop {
        let sent = tokio::select! {
            read = stdin.read(&mut buffer), if open => {
                let count = read.map_err(|error| Failure::local("cannot read stdin", error))?;
                open = count > 0;
                pass_on(&mut input, &buffer[..count]).await
            }
            Some(()) = resized.recv(), if wants.terminal => match terminal::size() {
                Some(size) => input.resize(size).await,
                None => Ok(()),
            },
            else => return Ok(()),
        };
        if sent.is_err() {
            return Ok(());
        }
    }
}

async fn pass_on(input: &mut ExecInput, data: &[u8]) -> Result<(), ClientError> {
    match data {
        [] => input.end().await,
        data => input.write(data).await,
    }
}
