//! Command sessions.

use bytes::Bytes;
use protocol::{ExitStatus, OutputKind, TerminalSize, ToGuest, ToHost};

use crate::LinkError;
use crate::session::{SessionInput, SessionOutput};

/// A command running in a guest. Dropping it, or either of its halves, before the exit was read
/// kills the command.
#[derive(Debug)]
pub struct ExecSession {
    input: ExecInput,
    output: ExecOutput,
}

impl ExecSession {
    pub(crate) fn new(input: SessionInput, output: SessionOutput) -> Self {
        ExecSession {
            input: ExecInput { session: input },
            output: ExecOutput {
                session: output,
                ended: false,
            },
        }
    }

    /// Takes the session apart, for two tasks.
    pub fn split(self) -> (ExecInput, ExecOutput) {
        (self.input, self.output)
    }
}

/// What goes to a command. Every method fails with [`LinkError::Ended`] once the command has ended.
#[derive(Debug)]
pub struct ExecInput {
    session: SessionInput,
}

impl ExecInput {
    /// Writes to standard input; waits while the command does not read. When cancelled, a prefix
    /// was written.
    ///
    /// # Errors
    /// [`LinkError`]; input a command leaves unread is lost without an error.
    pub async fn write(&mut self, bytes: impl Into<Bytes>) -> Result<(), LinkError> {
        self.session.write(bytes.into()).await
    }

    /// Ends standard input.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn eof(&mut self) -> Result<(), LinkError> {
        self.session.send(|call| ToGuest::Eof { call }).await
    }

    /// Changes the size of the command's terminal; without a terminal nothing happens.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn resize(&mut self, size: TerminalSize) -> Result<(), LinkError> {
        self.session
            .send(|call| ToGuest::Resize { call, size })
            .await
    }

    /// Sends a signal to the command's process group.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn signal(&mut self, signal: i32) -> Result<(), LinkError> {
        self.session
            .send(|call| ToGuest::Signal { call, signal })
            .await
    }
}

/// What comes from a command.
#[derive(Debug)]
pub struct ExecOutput {
    session: SessionOutput,
    ended: bool,
}

/// Output of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Standard output, or the terminal.
    Stdout(Bytes),
    /// Standard error.
    Stderr(Bytes),
    /// The command ended; nothing follows.
    Exit(ExitStatus),
}

impl ExecOutput {
    /// The next piece of output; `None` after [`Output::Exit`]. Cancel safe. A reader that stops
    /// reading stops the command once one window of output is waiting, and no other session.
    ///
    /// # Errors
    /// [`LinkError::Refused`] when the command was not accepted, [`LinkError::Closed`] when the
    /// connection is gone.
    pub async fn next(&mut self) -> Result<Option<Output>, LinkError> {
        if self.ended {
            return Ok(None);
        }
        match self.session.next().await? {
            ToHost::Data {
                kind: OutputKind::Stdout,
                bytes,
                ..
            } => Ok(Some(Output::Stdout(bytes.into()))),
            ToHost::Data {
                kind: OutputKind::Stderr,
                bytes,
                ..
            } => Ok(Some(Output::Stderr(bytes.into()))),
            ToHost::ExecExit { status, .. } => {
                self.ended = true;
                Ok(Some(Output::Exit(status)))
            }
            _ => Err(LinkError::Unexpected),
        }
    }
}
