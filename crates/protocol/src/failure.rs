//! Why the agent refused or could not finish something.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Failure of one call or session, as told by the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
#[error("{message}{}", path.as_ref().map(|path| format!(": {path}")).unwrap_or_default())]
pub struct Failure {
    /// What a program may act on.
    pub kind: FailureKind,
    /// What a person reads; a short fragment.
    pub message: String,
    /// The guest path concerned.
    pub path: Option<String>,
}

/// Kinds of [`Failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// Not possible in the phase the guest is in.
    Phase,
    /// No such path, user or session.
    NotFound,
    /// The guest's kernel refused permission.
    Denied,
    /// A directory is where a file was wanted.
    IsDirectory,
    /// Something else is where a directory was wanted.
    NotDirectory,
    /// A limit of sessions or sizes was reached.
    Limit,
    /// The request makes no sense.
    Invalid,
    /// A deadline passed.
    TimedOut,
    /// Anything else the guest's kernel said.
    Io,
}

impl Failure {
    /// A failure that concerns no path.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Failure {
            kind,
            message: message.into(),
            path: None,
        }
    }

    /// The same failure with the guest path it concerns.
    pub fn at(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }
}
