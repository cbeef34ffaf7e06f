//! Listening: a TCP address for clients with tokens, a unix socket for the host's own.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::serve::ListenerExt as _;
use axum::{Extension, Router};
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tracing::{debug, info};

use super::auth::Trusted;

/// Silence after which a client is asked whether it is still there. An exec or a followed
/// log may be silent for days; a client that vanished would keep its command for ever.
const PROBE_AFTER: Duration = Duration::from_secs(60);
/// Between two probes without an answer.
const PROBE_INTERVAL: Duration = Duration::from_secs(15);
/// Probes without an answer after which the client counts as gone.
const PROBES: u32 = 4;

/// Open listeners.
pub struct Listeners {
    tcp: TcpListener,
    unix: UnixListener,
    socket: PathBuf,
}

impl Listeners {
    /// Opens both. The socket is for its owner alone: who can connect needs no token.
    /// A socket left by a daemon that died is replaced; the caller holds the lock of
    /// the data directory, so no living daemon has it.
    pub async fn open(address: &str, socket: &Path) -> io::Result<Self> {
        let tcp = TcpListener::bind(address).await?;
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let unix = UnixListener::bind(socket)?;
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self {
            tcp,
            unix,
            socket: socket.to_owned(),
        })
    }

    /// The TCP address that was really bound.
    pub fn address(&self) -> io::Result<std::net::SocketAddr> {
        self.tcp.local_addr()
    }
}

/// Serves until `stop` is ready, then lets requests under way end.
pub async fn serve(
    listeners: Listeners,
    router: Router,
    stop: tokio::sync::watch::Receiver<bool>,
) -> io::Result<()> {
    info!(address = %listeners.address()?, socket = %listeners.socket.display(), "listening");
    let stopped = |mut stop: tokio::sync::watch::Receiver<bool>| async move {
        // An error means that the sender is gone, which also means to stop.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let trusted = router.clone().layer(Extension(Trusted));
    let tcp = listeners.tcp.tap_io(|stream| {
        // It works without, only slower, or with clients that are missed later.
        if let Err(error) = tune(stream) {
            debug!(%error, "cannot set the options of a connection");
        }
    });
    let tcp = axum::serve(tcp, router).with_graceful_shutdown(stopped(stop.clone()));
    let unix = axum::serve(listeners.unix, trusted).with_graceful_shutdown(stopped(stop));
    tokio::try_join!(tcp, unix)?;
    Ok(())
}

/// Sends what a terminal types at once, and notices clients that vanish.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_tcp_keepidle(stream, PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, PROBE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, PROBES)?;
    Ok(sockopt::set_socket_keepalive(stream, true)?)
}
