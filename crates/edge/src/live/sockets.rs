//! The sockets that listen: opened before a document is live, closed after it is over.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Edge;
use super::endpoint::{Endpoint, Purpose, Wanted};
use crate::config::{Listening, Protocol, Rejected};

/// Connections that the kernel keeps for us.
const BACKLOG: i32 = 1024;

/// An open socket.
#[derive(Debug)]
pub(crate) enum Bound {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

#[derive(Debug)]
struct Open {
    retire: CancellationToken,
    /// Ends, and the socket with it, once `retire` is cancelled.
    task: JoinHandle<()>,
}

/// The sockets of the live document.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    open: BTreeMap<Endpoint, Open>,
    /// What could not be opened when its document was loaded at start, and why.
    missing: Vec<(Endpoint, Rejected)>,
}

/// What was done for a document that is not live yet.
#[derive(Debug)]
pub(super) struct Prepared {
    bound: Vec<(Endpoint, Bound)>,
    /// Of the live document, closed already because the next one needs their ports.
    closed: Vec<Endpoint>,
    /// Missing in the live document already, and still.
    missing: Vec<(Endpoint, Rejected)>,
}

impl Sockets {
    pub(super) fn listening(&self) -> Vec<Listening> {
        self.open
            .keys()
            .map(|endpoint| endpoint.listening())
            .collect()
    }

    pub(super) fn missing(&self) -> Vec<Rejected> {
        self.missing.iter().map(|(_, why)| why.clone()).collect()
    }

    /// Opens what the next document needs more; changes nothing if that cannot be done.
    pub(super) async fn prepare(
        &mut self,
        wanted: &Wanted,
        edge: &Arc<Edge>,
    ) -> Result<Prepared, Rejected> {
        let mut bound = Vec::new();
        let mut blocked = Vec::new();
        let mut missing = Vec::new();
        for (endpoint, by) in wanted
            .iter()
            .filter(|(one, _)| !self.open.contains_key(one))
        {
            match bind(*endpoint) {
                Ok(socket) => bound.push((*endpoint, socket)),
                Err(error)
                    if in_use(&error) && self.leaving(*endpoint, wanted).next().is_some() =>
                {
                    blocked.push((*endpoint, by));
                }
                // Somebody else's change must not fail for it.
                Err(error) if self.missing.iter().any(|(one, _)| one == endpoint) => {
                    missing.push((*endpoint, rejected(*endpoint, by, &error)));
                }
                Err(error) => return Err(rejected(*endpoint, by, &error)),
            }
        }
        let mut closed: Vec<Endpoint> = Vec::new();
        for (endpoint, _) in &blocked {
            let leaving: Vec<_> = self.leaving(*endpoint, wanted).collect();
            for old in leaving {
                self.close(old).await;
                closed.push(old);
            }
        }
        let mut prepared = Prepared {
            bound,
            closed,
            missing,
        };
        for (endpoint, by) in blocked {
            match bind(endpoint) {
                Ok(socket) => prepared.bound.push((endpoint, socket)),
                Err(error) => {
                    self.abandon(prepared, edge);
                    return Err(rejected(endpoint, by, &error));
                }
            }
        }
        Ok(prepared)
    }

    /// Sockets of ours on the same port that the next document does not want.
    fn leaving(&self, endpoint: Endpoint, wanted: &Wanted) -> impl Iterator<Item = Endpoint> {
        let leaving = self.open.keys().filter(move |old| {
            old.protocol == endpoint.protocol
                && old.address.port() == endpoint.address.port()
                && !wanted.contains_key(old)
        });
        leaving.copied()
    }

    /// Back to what was before [`Self::prepare`].
    pub(super) fn abandon(&mut self, prepared: Prepared, edge: &Arc<Edge>) {
        drop(prepared.bound);
        for endpoint in prepared.closed {
            match bind(endpoint) {
                Ok(socket) => self.start(endpoint, socket, edge),
                // Somebody took it in these microseconds; it is tried again as after a start.
                Err(error) => self.missing.push((
                    endpoint,
                    rejected(endpoint, "the live configuration", &error),
                )),
            }
        }
    }

    /// Serves what was opened and retires what is not wanted any more. The document is live.
    pub(super) fn commit(&mut self, prepared: Prepared, wanted: &Wanted, edge: &Arc<Edge>) {
        self.missing = prepared.missing;
        for (endpoint, socket) in prepared.bound {
            self.start(endpoint, socket, edge);
        }
        self.open.retain(|endpoint, open| {
            let stays = wanted.contains_key(endpoint);
            if !stays {
                open.retire.cancel();
            }
            stays
        });
    }

    /// Opens what can be opened, for a document that was live before this process was.
    pub(super) fn open_all(&mut self, wanted: &Wanted, edge: &Arc<Edge>) {
        for (endpoint, by) in wanted {
            match bind(*endpoint) {
                Ok(socket) => self.start(*endpoint, socket, edge),
                Err(error) => {
                    let why = rejected(*endpoint, by, &error);
                    tracing::warn!(%why, "a port of the last configuration is missing");
                    self.missing.push((*endpoint, why));
                }
            }
        }
    }

    /// Tries again what could not be opened.
    pub(super) fn retry(&mut self, edge: &Arc<Edge>) {
        for (endpoint, why) in std::mem::take(&mut self.missing) {
            match bind(endpoint) {
                Ok(socket) => {
                    tracing::info!(address = %endpoint.address, "a missing port is open");
                    self.start(endpoint, socket, edge);
                }
                Err(_) => self.missing.push((endpoint, why)),
            }
        }
    }

    /// Closes everything that listens; connections go on.
    pub(super) async fn close_all(&mut self) {
        self.missing.clear();
        let all: Vec<_> = self.open.keys().copied().collect();
        for endpoint in all {
            self.close(endpoint).await;
        }
    }

    async fn close(&mut self, endpoint: Endpoint) {
        if let Some(open) = self.open.remove(&endpoint) {
            open.retire.cancel();
            // A task that panicked has closed its socket too.
            let _ = open.task.await;
        }
    }

    fn start(&mut self, endpoint: Endpoint, socket: Bound, edge: &Arc<Edge>) {
        let retire = CancellationToken::new();
        let task = tokio::spawn(super::serve::serve(
            Arc::clone(edge),
            endpoint,
            socket,
            retire.clone(),
        ));
        self.open.insert(endpoint, Open { retire, task });
    }
}

fn in_use(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

fn rejected(endpoint: Endpoint, by: &str, error: &io::Error) -> Rejected {
    let Endpoint {
        protocol, address, ..
    } = endpoint;
    let wanted_by = by.to_owned();
    if in_use(error) {
        return Rejected::PortInUse {
            protocol,
            address,
            wanted_by,
        };
    }
    Rejected::CannotListen {
        protocol,
        address,
        wanted_by,
        reason: error.to_string(),
    }
}

fn bind(endpoint: Endpoint) -> io::Result<Bound> {
    let kind = match endpoint.protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
    };
    let socket = Socket::new(Domain::for_address(endpoint.address), kind, None)?;
    socket.set_nonblocking(true)?;
    if let SocketAddr::V6(_) = endpoint.address {
        // So that an IPv4 socket beside it means what it says.
        socket.set_only_v6(true)?;
    }
    if endpoint.purpose == Purpose::Dns {
        // The gateway's address may come later than we do.
        match endpoint.address {
            SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
            SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
        }
    }
    match endpoint.protocol {
        Protocol::Tcp => {
            // Connections of a socket closed before do not hold the port.
            socket.set_reuse_address(true)?;
            socket.bind(&endpoint.address.into())?;
            socket.listen(BACKLOG)?;
            Ok(Bound::Tcp(TcpListener::from_std(socket.into())?))
        }
        Protocol::Udp => {
            socket.bind(&endpoint.address.into())?;
            Ok(Bound::Udp(UdpSocket::from_std(socket.into())?))
        }
    }
}
