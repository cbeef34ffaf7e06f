//! Forwarded connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Ended, carry, target};
use crate::config::Protocol;
use crate::live::{Edge, Lifetime};

/// A forwarded connection without a byte is kept this long; databases keep theirs for hours.
const IDLE: Duration = Duration::from_secs(6 * 3600);
/// For the daemon to send the directory after it started the edge.
const FIRST_DIRECTORY: Duration = Duration::from_secs(5);

/// Carries one connection to the instance that the port leads to.
pub(crate) async fn serve_tcp(
    edge: Arc<Edge>,
    listen: SocketAddr,
    client: TcpStream,
    lifetime: Lifetime,
) {
    let metrics = edge.metrics();
    let _open = metrics.forward_connections.hold();
    let mut directory = edge.directory().subscribe();
    let filled = directory.wait_for(|instances| instances.is_filled());
    let known = match timeout(FIRST_DIRECTORY, filled).await {
        Ok(Ok(_)) => target(&edge, Protocol::Tcp, listen),
        Ok(Err(_)) | Err(_) => None,
    };
    let limit = edge.live().config.ingress.limits.connect();
    let connected = match &known {
        Some((_, address)) => timeout(limit, TcpStream::connect(address))
            .await
            .ok()
            .and_then(Result::ok),
        None => None,
    };
    let (Some((known, _)), Some(guest)) = (known, connected) else {
        metrics.forward_failed.one();
        // As if nothing listened, which is how it is in the instance.
        let _ = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
        return;
    };
    metrics.forward_opened.one();
    let _ = guest.set_nodelay(true);
    let ended = Ended {
        generation: known.ended.clone(),
        lifetime,
        idle: IDLE,
    };
    let bytes = carry(client, guest, ended).await;
    metrics.forward_bytes.add(bytes);
}
