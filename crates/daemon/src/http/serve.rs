//! Listening: a TCP address for clients with tokens, a unix socket for the host's own.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use axum::{Extension, Router};
use tokio::net::{TcpListener, UnixListener};
use tracing::info;

use super::auth::Trusted;

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
    let tcp = axum::serve(listeners.tcp, router).with_graceful_shutdown(stopped(stop.clone()));
    let unix = axum::serve(listeners.unix, trusted).with_graceful_shutdown(stopped(stop));
    tokio::try_join!(tcp, unix)?;
    Ok(())
}
