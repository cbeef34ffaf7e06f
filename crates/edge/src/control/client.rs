//! The daemon's side of the socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;

use super::frame;
use super::message::{Ack, CertificateState, Event, Hello, Request, Resolved, Response, Status};
use crate::config::{Applied, Config, Rejected};
use crate::directory::{DirectoryUpdate, OutOfSequence};
use crate::metrics::MetricsReport;

/// For one answer. An apply parses certificates and binds ports, nothing that takes longer.
const ANSWER: Duration = Duration::from_secs(10);

/// Asks the edge of one data directory. Cheap to clone; every call has a connection of its own, so
/// it goes on working when the edge is replaced.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody serves the socket, or its owner died while it was asked.
    #[error("cannot reach the edge at {socket}")]
    Io {
        /// Where.
        socket: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// No answer in time.
    #[error("the edge at {0} does not answer")]
    Silent(PathBuf),
    /// Another version, which must be replaced.
    #[error("the edge answers with something else: {0}")]
    Unexpected(String),
}

/// Why a configuration is not live.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The edge refuses it; the one before stays live.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The edge was not asked, or its answer was lost.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Why a directory is not live.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Send everything.
    #[error(transparent)]
    OutOfSequence(#[from] OutOfSequence),
    /// The edge was not asked, or its answer was lost.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl Client {
    /// For the socket of a directory; see [`Place::socket`](crate::Place::socket).
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks who serves the socket.
    ///
    /// # Errors
    ///
    /// If nobody does.
    pub async fn hello(&self) -> Result<Hello, ClientError> {
        match self.ask(&Request::Hello).await? {
            Response::Hello(hello) => Ok(hello),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes a document live, whole or not at all. Open connections stay.
    ///
    /// # Errors
    ///
    /// [`Rejected`] says which listener or rule and why.
    pub async fn apply(&self, config: Config) -> Result<Applied, ApplyError> {
        match self.ask(&Request::Apply(Box::new(config))).await? {
            Response::Applied(applied) => Ok(applied),
            Response::Rejected(rejected) => Err(rejected.into()),
            other => Err(unexpected(&other).into()),
        }
    }

    /// Says where instances are; returns the sequence number that is live.
    ///
    /// # Errors
    ///
    /// [`OutOfSequence`] if a change does not follow the one before it.
    pub async fn directory(&self, update: DirectoryUpdate) -> Result<u64, DirectoryError> {
        match self.ask(&Request::Directory(update)).await? {
            Response::Directory(outcome) => Ok(outcome?),
            other => Err(unexpected(&other).into()),
        }
    }

    /// How it goes.
    ///
    /// # Errors
    ///
    /// If the edge cannot be asked.
    pub async fn status(&self) -> Result<Status, ClientError> {
        match self.ask(&Request::Status).await? {
            Response::Status(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }

    /// Counts, durations and open connections.
    ///
    /// # Errors
    ///
    /// If the edge cannot be asked.
    pub async fn metrics(&self) -> Result<MetricsReport, ClientError> {
        match self.ask(&Request::Metrics).await? {
            Response::Metrics(report) => Ok(report),
            other => Err(unexpected(&other)),
        }
    }

    /// Reads the files of certificates now rather than at the next look.
    ///
    /// # Errors
    ///
    /// If the edge cannot be asked. Files that cannot be used are told in the states.
    pub async fn reload_certificates(&self) -> Result<Vec<CertificateState>, ClientError> {
        match self.ask(&Request::ReloadCertificates).await? {
            Response::Certificates(states) => Ok(states),
            other => Err(unexpected(&other)),
        }
    }

    /// Tells it to end. When this returns its ports, lock and socket are free; connections that
    /// are open go on for [`Limits::drain_ms`](crate::Limits::drain_ms) at most.
    ///
    /// # Errors
    ///
    /// If the edge cannot be asked.
    pub async fn stop(&self) -> Result<(), ClientError> {
        match self.ask(&Request::Stop).await? {
            Response::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Listens to what guests with an allow-list resolve. The latest subscriber is the one asked.
    ///
    /// # Errors
    ///
    /// If the edge cannot be asked.
    pub async fn subscribe(&self) -> Result<Resolutions, ClientError> {
        let mut stream = self.connect().await?;
        match self.exchange(&mut stream, &Request::Subscribe).await? {
            Response::Done => Ok(Resolutions {
                stream,
                socket: self.socket.clone(),
            }),
            other => Err(unexpected(&other)),
        }
    }

    async fn ask(&self, request: &Request) -> Result<Response, ClientError> {
        let mut stream = self.connect().await?;
        self.exchange(&mut stream, request).await
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        match timeout(ANSWER, UnixStream::connect(&self.socket)).await {
            Ok(connected) => connected.map_err(|source| self.io(source)),
            Err(_) => Err(ClientError::Silent(self.socket.clone())),
        }
    }

    async fn exchange(
        &self,
        stream: &mut UnixStream,
        request: &Request,
    ) -> Result<Response, ClientError> {
        let exchange = async {
            frame::write(stream, request).await?;
            frame::read(stream).await
        };
        match timeout(ANSWER, exchange).await {
            Ok(Ok(Some(response))) => Ok(response),
            Ok(Ok(None)) => Err(self.io(io::ErrorKind::UnexpectedEof.into())),
            Ok(Err(source)) => Err(self.io(source)),
            Err(_) => Err(ClientError::Silent(self.socket.clone())),
        }
    }

    fn io(&self, source: io::Error) -> ClientError {
        ClientError::Io {
            socket: self.socket.clone(),
            source,
        }
    }
}

fn unexpected(response: &Response) -> ClientError {
    ClientError::Unexpected(match response {
        Response::Bad(why) => why.clone(),
        other => format!("{other:?}").chars().take(200).collect(),
    })
}

/// What guests with an allow-list resolve, one after the other.
#[derive(Debug)]
pub struct Resolutions {
    stream: UnixStream,
    socket: PathBuf,
}

/// A resolution that a guest waits for. Dropped without an answer it counts as refused once the
/// deadline is over.
#[derive(Debug)]
pub struct Pending {
    number: u64,
    /// What is about to be told.
    pub resolved: Resolved,
}

impl Resolutions {
    /// Waits for the next.
    ///
    /// # Errors
    ///
    /// If the edge is gone or somebody else subscribed; subscribe again.
    pub async fn next(&mut self) -> Result<Pending, ClientError> {
        match frame::read::<Event>(&mut self.stream).await {
            Ok(Some(Event { number, resolved })) => Ok(Pending { number, resolved }),
            Ok(None) => Err(self.io(io::ErrorKind::UnexpectedEof.into())),
            Err(source) => Err(self.io(source)),
        }
    }

    /// Lets the guest have its answer, or not.
    ///
    /// # Errors
    ///
    /// If the edge is gone.
    pub async fn answer(&mut self, pending: Pending, accepted: bool) -> Result<(), ClientError> {
        let ack = Ack {
            number: pending.number,
            accepted,
        };
        let written = timeout(ANSWER, frame::write(&mut self.stream, &ack)).await;
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(self.io(source)),
            Err(_) => Err(ClientError::Silent(self.socket.clone())),
        }
    }

    fn io(&self, source: io::Error) -> ClientError {
        ClientError::Io {
            socket: self.socket.clone(),
            source,
        }
    }
}
