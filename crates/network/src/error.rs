//! What can go wrong with the network.

use std::fmt;
use std::io;

use crate::{BadPolicy, Protocol, Slot};

/// Something this host lacks, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// What is missing, in words.
    pub what: String,
    /// What the operator can do.
    pub remedy: String,
    /// Whether instances can have no network at all because of it.
    pub fatal: bool,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// Why the network did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// All slots are in use. Nothing was made or changed.
    #[error(
        "all {capacity} addresses of the pool {pool} are in use: delete or stop instances, or configure a larger pool"
    )]
    Exhausted {
        /// The pool.
        pool: String,
        /// How many slots it has.
        capacity: usize,
    },
    /// The host cannot have networks.
    #[error("this host cannot give instances a network: {}", list(.0))]
    NotReady(Vec<Lack>),
    /// The configured addresses are in use on this host.
    #[error("the pool {pool} overlaps {with} of this host: configure another pool")]
    PoolClash {
        /// The pool, or what was tried.
        pool: String,
        /// Route or address.
        with: String,
    },
    /// Another process serves this mark.
    #[error("another daemon with the mark {mark} is running on this host")]
    MarkInUse {
        /// The mark.
        mark: String,
    },
    /// The host port is published already, or a process of the host listens on it.
    #[error("host port {port}/{protocol} is in use by {by}")]
    PortInUse {
        /// Transport.
        protocol: Protocol,
        /// Host port.
        port: u16,
        /// Owner of the other lease, or "a process of the host".
        by: String,
    },
    /// The policy contradicts itself.
    #[error("bad network policy: {0}")]
    BadPolicy(#[from] BadPolicy),
    /// Nobody uses this slot.
    #[error("slot {0} is not in use")]
    UnknownSlot(Slot),
    /// The kernel refused.
    #[error("cannot {action} {object}")]
    Io {
        /// Verb of the failed call.
        action: &'static str,
        /// Name of the object.
        object: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Several things could not be removed; everything else was.
    #[error("{} network objects could not be removed, the first: {}", .0.len(), first(.0))]
    Teardown(Vec<NetworkError>),
}

impl NetworkError {
    pub(crate) fn io(
        action: &'static str,
        object: impl fmt::Display,
    ) -> impl FnOnce(io::Error) -> Self {
        let object = object.to_string();
        move |source| Self::Io {
            action,
            object,
            source,
        }
    }
}

fn list(lacks: &[Lack]) -> String {
    let words: Vec<_> = lacks.iter().map(Lack::to_string).collect();
    words.join(". ")
}

fn first(errors: &[NetworkError]) -> String {
    errors
        .first()
        .map(NetworkError::to_string)
        .unwrap_or_default()
}
