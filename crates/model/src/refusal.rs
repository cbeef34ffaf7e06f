//! Why the rules say no, in words that a user can act on.

/// The kind of a refusal; the HTTP edge gives each its status and code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The request contradicts itself or breaks a limit: it can never succeed as it is.
    InvalidRequest,
    /// The instance is in a state that does not allow the operation.
    InvalidState,
}

/// A refusal of an operation by the rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind of no it is.
    pub kind: RefusalKind,
    /// Why, and what to do about it.
    pub message: String,
}

impl Refusal {
    /// The request is wrong in itself.
    #[must_use]
    pub fn request(message: impl Into<String>) -> Self {
        Self {
            kind: RefusalKind::InvalidRequest,
            message: message.into(),
        }
    }

    /// The state does not allow it.
    #[must_use]
    pub fn state(message: impl Into<String>) -> Self {
        Self {
            kind: RefusalKind::InvalidState,
            message: message.into(),
        }
    }
}
