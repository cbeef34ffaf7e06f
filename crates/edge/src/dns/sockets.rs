//! Questions by datagram and by connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::inflight::InFlight;
use super::responder::{Responder, Transport};
use crate::config::Audience;
use crate::live::{Edge, Lifetime};

/// Longest question in a datagram, in bytes; more than any client sends.
const MAX_DATAGRAM: usize = 4096;
/// For the next question on a connection.
const IDLE: Duration = Duration::from_secs(10);

/// Who asks at an address now. Nobody is served as a program of the host by mistake.
fn audience(edge: &Edge, address: SocketAddr) -> Audience {
    let live = edge.live();
    let listener = live
        .config
        .dns
        .listeners
        .iter()
        .find(|listener| listener.address == address);
    listener.map_or(Audience::Guests, |listener| listener.audience)
}

/// Answers datagrams until the socket is retired.
pub(crate) async fn serve_udp(
    edge: Arc<Edge>,
    address: SocketAddr,
    socket: UdpSocket,
    retire: CancellationToken,
) {
    let socket = Arc::new(socket);
    let in_flight = InFlight::default();
    let mut datagram = vec![0; MAX_DATAGRAM];
    loop {
        let received = tokio::select! {
            () = retire.cancelled() => return,
            received = socket.recv_from(&mut datagram) => received,
        };
        // An error is the echo of an earlier answer that nobody took.
        let Ok((length, client)) = received else {
            continue;
        };
        // One place for each question, taken here so that the tasks themselves are bounded.
        let most = edge.live().config.dns.queries;
        let Some(permit) = in_flight.enter(client.ip(), most) else {
            edge.metrics().dns_dropped.one();
            continue;
        };
        let responder = Responder {
            edge: Arc::clone(&edge),
            audience: audience(&edge, address),
        };
        let (question, socket) = (datagram[..length].to_vec(), Arc::clone(&socket));
        tokio::spawn(async move {
            let answer = responder
                .respond(&question, client.ip(), Transport::Datagram)
                .await;
            if let Some(answer) = answer {
                let _ = socket.send_to(&answer, client).await;
            }
            drop(permit);
        });
    }
}

/// Answers the questions of one connection, one after the other.
pub(crate) async fn serve_tcp(
    edge: Arc<Edge>,
    address: SocketAddr,
    mut stream: TcpStream,
    client: SocketAddr,
    lifetime: Lifetime,
) {
    let open = edge.metrics().dns_connections.hold();
    let responder = Responder {
        audience: audience(&edge, address),
        edge,
    };
    let conversation = async {
        loop {
            let length = timeout(IDLE, stream.read_u16()).await.ok()?.ok()?;
            let mut question = vec![0; usize::from(length)];
            timeout(IDLE, stream.read_exact(&mut question))
                .await
                .ok()?
                .ok()?;
            let answer = responder
                .respond(&question, client.ip(), Transport::Stream)
                .await?;
            let length = u16::try_from(answer.len()).ok()?;
            let frame = [&length.to_be_bytes(), answer.as_slice()].concat();
            timeout(IDLE, stream.write_all(&frame)).await.ok()?.ok()?;
        }
    };
    // Any end of a conversation is one: clients ask again.
    let _: Option<()> = tokio::select! {
        ended = conversation => ended,
        () = lifetime.retired() => None,
    };
    drop(open);
}
