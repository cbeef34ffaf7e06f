//! Forwarded datagrams: each client has a socket of its own towards the instance, so that answers
//! find back.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::target;
use crate::config::Protocol;
use crate::live::Edge;

/// A flow without a datagram either way ends after this.
const IDLE: Duration = Duration::from_secs(60);
/// For a full queue towards one guest, which all clients of the port wait for.
const SEND: Duration = Duration::from_millis(20);
/// Clients at once of one port; datagrams of more are dropped.
const MAX_FLOWS: usize = 1024;
/// Longest datagram, in bytes.
const MAX_DATAGRAM: usize = 65_535;

struct Flow {
    socket: Arc<UdpSocket>,
    /// Datagrams of the client, for the other direction to see that it is alive.
    received: Arc<AtomicU64>,
    generation: CancellationToken,
    number: u64,
}

/// Carries datagrams until the socket is retired.
pub(crate) async fn serve_udp(
    edge: Arc<Edge>,
    listen: SocketAddr,
    socket: UdpSocket,
    retire: CancellationToken,
) {
    let socket = Arc::new(socket);
    // Ends every flow with this function.
    let all = retire.child_token();
    let _end = all.clone().drop_guard();
    let (ended, mut over) = mpsc::channel::<(SocketAddr, u64)>(MAX_FLOWS);
    let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
    let mut datagram = vec![0; MAX_DATAGRAM];
    let mut number = 0;
    loop {
        tokio::select! {
            () = retire.cancelled() => return,
            Some((client, number)) = over.recv() => {
                if flows.get(&client).is_some_and(|flow| flow.number == number) {
                    flows.remove(&client);
                }
            }
            received = socket.recv_from(&mut datagram) => {
                // An error is the echo of an earlier answer that nobody took.
                let Ok((length, client)) = received else { continue };
                if flows.get(&client).is_some_and(|flow| flow.generation.is_cancelled()) {
                    flows.remove(&client);
                }
                if !flows.contains_key(&client) {
                    number += 1;
                    let flow = if flows.len() < MAX_FLOWS { open(&edge, listen, number).await.ok() } else { None };
                    let Some(flow) = flow else {
                        edge.metrics().forward_failed.one();
                        continue;
                    };
                    edge.metrics().forward_opened.one();
                    tokio::spawn(answers(Arc::clone(&edge), Arc::clone(&socket), client, flow.part(), all.clone(), ended.clone()));
                    flows.insert(client, flow);
                }
                if let Some(flow) = flows.get(&client) {
                    flow.received.fetch_add(1, Ordering::Relaxed);
                    edge.metrics().forward_bytes.add(length as u64);
                    // What cannot be sent soon is lost, as datagrams are.
                    let _ = timeout(SEND, flow.socket.send(&datagram[..length])).await;
                }
            }
        }
    }
}

impl Flow {
    fn part(&self) -> Self {
        Self {
            socket: Arc::clone(&self.socket),
            received: Arc::clone(&self.received),
            generation: self.generation.clone(),
            number: self.number,
        }
    }
}

async fn open(edge: &Edge, listen: SocketAddr, number: u64) -> io::Result<Flow> {
    let (known, address) =
        target(edge, Protocol::Udp, listen).ok_or(io::ErrorKind::NotConnected)?;
    let any = match address {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(address).await?;
    Ok(Flow {
        socket: Arc::new(socket),
        received: Arc::default(),
        generation: known.ended.clone(),
        number,
    })
}

/// Brings the guest's datagrams back to one client.
async fn answers(
    edge: Arc<Edge>,
    listener: Arc<UdpSocket>,
    client: SocketAddr,
    flow: Flow,
    all: CancellationToken,
    ended: mpsc::Sender<(SocketAddr, u64)>,
) {
    let _open = edge.metrics().forward_connections.hold();
    let mut datagram = vec![0; MAX_DATAGRAM];
    let mut before = 0;
    loop {
        let received = tokio::select! {
            () = all.cancelled() => return,
            () = flow.generation.cancelled() => break,
            received = timeout(IDLE, flow.socket.recv(&mut datagram)) => received,
        };
        match received {
            Ok(Ok(length)) => {
                edge.metrics().forward_bytes.add(length as u64);
                let _ = listener.send_to(&datagram[..length], client).await;
            }
            // Nothing listens in the guest yet; the client may try again.
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Ok(Err(_)) => break,
            Err(_) => {
                let now = flow.received.load(Ordering::Relaxed);
                if now == before {
                    break;
                }
                before = now;
            }
        }
    }
    let _ = ended.send((client, flow.number)).await;
}
