//! What can go wrong with an operation on an instance.

use guest::LinkError;
use hypervisor::VmmError;
use memory::ImageError;
use model::Refusal;
use model::network::Protocol;
use network::NetworkError;
use pager::PagerError;

use crate::store::StoreError;

/// Why an operation failed. What it had begun was undone, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum OpError {
    /// The rules refuse it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No such instance, or it was deleted meanwhile.
    #[error("no such instance")]
    NotFound,
    /// Several instances match.
    #[error("{0} instances have an id with this prefix; give more of it")]
    Ambiguous(usize),
    /// The image is not there.
    #[error("no image {0:?} on this host; import it with: coppice image import FILE")]
    NoImage(String),
    /// The records failed.
    #[error("the records failed")]
    Store(#[source] StoreError),
    /// Another instance has the name.
    #[error("the name {0:?} is taken by another instance")]
    NameTaken(String),
    /// The VMM failed.
    #[error("the VMM failed")]
    Vmm(#[from] VmmError),
    /// The VMM of the instance, or the one it asks for, does not run on this host.
    #[error("{name} does not run on this host: {why}")]
    NoVmm {
        /// The VMM.
        name: String,
        /// Why, and what is to be done.
        why: String,
    },
    /// The agent in the guest failed or did not answer.
    #[error("the guest's agent failed")]
    Guest(#[from] LinkError),
    /// The memory image failed.
    #[error("the memory image failed")]
    Memory(#[from] ImageError),
    /// The pager of the memory failed.
    #[error("the pager of its memory failed")]
    Pager(#[from] PagerError),
    /// The pager had the machine killed.
    #[error("its memory cannot be served: {0}")]
    Unserved(String),
    /// The network failed.
    #[error("the network failed")]
    Network(#[from] NetworkError),
    /// A port of the host leads elsewhere.
    #[error("host port {port}/{protocol} is in use by {by}")]
    PortInUse {
        /// The port.
        port: u16,
        /// Its transport.
        protocol: Protocol,
        /// Whose it is, in words.
        by: String,
    },
    /// A file operation failed.
    #[error("{what}")]
    Disk {
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Something takes longer than it may.
    #[error("{0} took longer than it may")]
    Timeout(&'static str),
    /// Too many requests wait for this instance.
    #[error("too many requests wait for this instance; try again later")]
    Busy,
    /// The host lacks something that the daemon needs for this.
    #[error("{0}")]
    HostNotReady(String),
    /// The daemon itself failed in the middle of it.
    #[error(
        "coppiced failed at this operation; what it left is being mended, see the daemon's log"
    )]
    Broken,
    /// The command that a new fork runs before it is announced failed.
    #[error("the post_fork command failed: {0}")]
    PostFork(String),
}

impl OpError {
    /// Wraps an IO error with what was being done.
    pub(crate) fn disk(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Disk { what, source }
    }
}

impl From<StoreError> for OpError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(refusal) => Self::Refused(refusal),
            StoreError::NotFound => Self::NotFound,
            StoreError::NameTaken(name) => Self::NameTaken(name),
            other => Self::Store(other),
        }
    }
}

/// The whole chain of an error in one line, for logs and for people.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Transparent wrappers repeat their source word for word.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
