//! What is asked of the edge on its socket, and what it says.

use std::net::IpAddr;
use std::path::PathBuf;

use model::InstanceId;
use serde::{Deserialize, Serialize};

use crate::config::{Applied, Config, Listening, Rejected};
use crate::directory::{DirectoryUpdate, OutOfSequence};
use crate::metrics::MetricsReport;

/// The version of these messages.
pub const PROTOCOL_VERSION: u32 = 1;

/// One question; each connection may ask several, one after the other.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    Hello,
    Apply(Box<Config>),
    Directory(DirectoryUpdate),
    Status,
    Metrics,
    ReloadCertificates,
    /// The connection carries [`Event`]s and [`Ack`]s from here on.
    Subscribe,
    /// Let go of sockets, lock and files, finish what is open, and end.
    Stop,
}

/// The answer to a [`Request`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Response {
    Hello(Hello),
    Applied(Applied),
    Rejected(Rejected),
    Directory(Result<u64, OutOfSequence>),
    Status(Status),
    Metrics(MetricsReport),
    Certificates(Vec<CertificateState>),
    Done,
    /// The question was not understood.
    Bad(String),
}

/// Who serves the socket. Fields are only ever added, so that every build can read every other's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`].
    pub protocol: u32,
    /// What [`Start::build`](crate::Start::build) said when it was started.
    pub build: String,
    /// Its process.
    pub pid: u32,
    /// Where it keeps its files, as it was told at its start; `None` from builds that do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
}

/// How it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Of the live document; `None` before the first.
    pub revision: Option<u64>,
    /// Of the last change of the directory.
    pub directory_sequence: u64,
    /// How many instances the directory has.
    pub instances: usize,
    /// Sockets that listen.
    pub listeners: Vec<Listening>,
    /// Sockets of a document loaded at start that could not be opened yet; tried again and again.
    pub missing: Vec<Rejected>,
    /// The certificates in use.
    pub certificates: Vec<CertificateState>,
    /// Whether somebody listens to [`Resolved`] events. If not, guests with an allow-list of
    /// domains resolve nothing.
    pub subscribed: bool,
}

/// A certificate in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateState {
    /// Its name in the document.
    pub name: String,
    /// The host names that it covers.
    pub covers: Vec<String>,
    /// Why its changed files are not used; the ones from before are.
    pub problem: Option<String>,
}

/// Said on a subscribed connection; answered with an [`Ack`] within
/// [`ACK_DEADLINE`](crate::ACK_DEADLINE).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) number: u64,
    pub(crate) resolved: Resolved,
}

/// The answer to an [`Event`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ack {
    pub(crate) number: u64,
    pub(crate) accepted: bool,
}

/// A guest with an allow-list of domains is about to learn addresses.
/// It gets its answer when they are allowed, and SERVFAIL otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The guest.
    pub instance: InstanceId,
    /// Its generation when it asked.
    pub generation: u64,
    /// Its outside address.
    pub source: IpAddr,
    /// What it asked for, without the final dot.
    pub name: String,
    /// What it is about to be told.
    pub addresses: Vec<ResolvedAddress>,
}

/// An address and how long it may be remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedAddress {
    /// The address.
    pub address: IpAddr,
    /// Seconds that the guest may keep it, as in the answer.
    pub ttl_seconds: u32,
}
