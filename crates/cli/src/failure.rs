//! How commands fail, and what the user reads of it.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use api::client::ClientError;

/// Exit code of a command that did not do what it was asked.
pub(crate) const EXIT_FAILURE: u8 = 1;

/// Exit code for arguments that make no sense, as clap has it.
pub(crate) const EXIT_USAGE: u8 = 2;

/// Exit code of `exec` when the command was not run at all.
pub(crate) const EXIT_NOT_RUN: u8 = 125;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Plain(String),
    #[error(transparent)]
    Server(#[from] ClientError),
    #[error("{what}")]
    Local {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot write the output")]
    Output(#[source] io::Error),
    /// Everything was said already.
    #[error("")]
    Told,
}

/// A fault with what may help, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) fault: Fault,
    pub(crate) hint: Option<String>,
    code: u8,
}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Fault::Usage(message.into()), EXIT_USAGE)
    }

    pub(crate) fn plain(message: impl Into<String>) -> Self {
        Self::new(Fault::Plain(message.into()), EXIT_FAILURE)
    }

    pub(crate) fn local(what: impl Into<String>, source: io::Error) -> Self {
        let what = what.into();
        Self::new(Fault::Local { what, source }, EXIT_FAILURE)
    }

    /// Nothing more to say than the exit code.
    pub(crate) fn told() -> Self {
        Self::new(Fault::Told, EXIT_FAILURE)
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn exit(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    fn new(fault: Fault, code: u8) -> Self {
        Self {
            fault,
            hint: None,
            code,
        }
    }

    /// The error on one line, with its first cause.
    pub(crate) fn line(&self) -> String {
        let mut line = self.fault.to_string();
        // Between our words and the system's, libraries only repeat that a
        // request failed.
        let chain = std::iter::successors(self.fault.source(), |error| (*error).source());
        if let Some(root) = chain.last() {
            line.push_str(": ");
            line.push_str(&root.to_string());
        }
        line.replace('\n', " ")
    }

    /// Tells the user, and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        match &self.fault {
            // Whoever read our output has had enough of it.
            Fault::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return ExitCode::SUCCESS;
            }
            Fault::Told => {}
            _ => eprintln!("error: {}", self.line()),
        }
        if let Some(hint) = &self.hint {
            eprintln!("hint: {hint}");
        }
        ExitCode::from(self.code)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let hint = crate::explain::general(&error);
        let mut failure = Self::new(Fault::Server(error), EXIT_FAILURE);
        failure.hint = hint;
        failure
    }
}

/// Writing to stdout is the only input or output that `?` is used on directly.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(Fault::Output(error), EXIT_FAILURE)
    }
}
