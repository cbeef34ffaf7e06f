//! Accepting on an open socket until it is retired.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::Edge;
use super::endpoint::{Endpoint, Purpose};
use super::sockets::Bound;
use crate::{dns, forward, ingress};

/// After a failed accept, so that a lack of descriptors does not take the processor too.
const BACKOFF: Duration = Duration::from_millis(50);

/// How long a connection may live on: until its socket is retired, and a bounded time after.
#[derive(Debug, Clone)]
pub(crate) struct Lifetime {
    retire: CancellationToken,
    drain: Duration,
}

impl Lifetime {
    /// The connection's socket is retired: finish what is under way.
    pub(crate) async fn retired(&self) {
        self.retire.cancelled().await;
    }

    /// The time after that is over too.
    pub(crate) async fn over(&self) {
        self.retire.cancelled().await;
        tokio::time::sleep(self.drain).await;
    }
}

pub(super) async fn serve(
    edge: Arc<Edge>,
    endpoint: Endpoint,
    socket: Bound,
    retire: CancellationToken,
) {
    match (socket, endpoint.purpose) {
        (Bound::Tcp(listener), _) => accept(edge, endpoint, listener, retire).await,
        (Bound::Udp(socket), Purpose::Dns) => {
            dns::serve_udp(edge, endpoint.address, socket, retire).await;
        }
        (Bound::Udp(socket), Purpose::Forward) => {
            forward::serve_udp(edge, endpoint.address, socket, retire).await;
        }
        // `wanted` asks for TCP alone.
        (Bound::Udp(_), Purpose::Ingress) => {}
    }
}

async fn accept(
    edge: Arc<Edge>,
    endpoint: Endpoint,
    listener: TcpListener,
    retire: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = retire.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, client)) => {
                let lifetime = Lifetime {
                    retire: retire.clone(),
                    drain: edge.live().config.ingress.limits.drain(),
                };
                receive(&edge, endpoint, stream, client, lifetime);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, address = %endpoint.address, "cannot accept");
                tokio::time::sleep(BACKOFF).await;
            }
        }
    }
}

/// Errors of accept that say something of the client, not of us.
fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
    )
}

fn receive(
    edge: &Arc<Edge>,
    endpoint: Endpoint,
    stream: TcpStream,
    client: SocketAddr,
    lifetime: Lifetime,
) {
    let metrics = edge.metrics();
    let most = edge.live().config.ingress.limits.connections;
    let open = [
        &metrics.client_connections,
        &metrics.forward_connections,
        &metrics.dns_connections,
    ];
    if open.iter().map(|gauge| gauge.count()).sum::<usize>() >= most {
        metrics.client_connections_refused.one();
        return;
    }
    // Answers are written whole; waiting for more only delays them.
    let _ = stream.set_nodelay(true);
    let edge = Arc::clone(edge);
    match endpoint.purpose {
        Purpose::Ingress => {
            let shared = Arc::clone(&edge);
            // Counted from here on: it must not be forgotten while its thread has not come to it yet.
            let open = metrics.client_connections.hold();
            let spawned = edge.lanes().spawn(stream, move |lane, stream| {
                let ends = (endpoint.address, client);
                ingress::serve((shared, open), lane, ends, stream, lifetime)
            });
            if let Err(error) = spawned {
                tracing::warn!(%error, "a client is not served");
            }
        }
        Purpose::Dns => {
            tokio::spawn(dns::serve_tcp(
                edge,
                endpoint.address,
                stream,
                client,
                lifetime,
            ));
        }
        Purpose::Forward => {
            tokio::spawn(forward::serve_tcp(edge, endpoint.address, stream, lifetime));
        }
    }
}
