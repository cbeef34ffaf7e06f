//! The edge's side of the socket.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::frame;
use super::message::{Hello, PROTOCOL_VERSION, Request, Response};
use crate::live::Edge;

/// For the next question on a connection; the daemon's connections carry one each.
const QUESTION: Duration = Duration::from_secs(30);
/// After a failed accept, so that a lack of descriptors does not take the processor too.
const BACKOFF: Duration = Duration::from_millis(50);

/// Opens the socket, 0600, in place of one that a dead process left. The lock is held.
pub(crate) fn open(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until told to end.
pub(crate) async fn serve(listener: UnixListener, edge: Arc<Edge>, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (edge, stop) = (Arc::clone(&edge), stop.clone());
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, edge, stop).await {
                        tracing::debug!(%error, "a control connection broke");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a control connection");
                tokio::time::sleep(BACKOFF).await;
            }
        }
    }
}

async fn converse(
    mut stream: UnixStream,
    edge: Arc<Edge>,
    stop: CancellationToken,
) -> io::Result<()> {
    loop {
        let request = match timeout(QUESTION, frame::read::<Request>(&mut stream)).await {
            Ok(Ok(Some(request))) => request,
            Ok(Ok(None)) | Err(_) => return Ok(()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                // What the daemon asks is its own; a message it knows and we do not is told apart.
                frame::write(&mut stream, &Response::Bad(error.to_string())).await?;
                return Ok(());
            }
            Ok(Err(error)) => return Err(error),
        };
        let response = match request {
            Request::Subscribe => {
                let events = edge.reporter().subscribe();
                frame::write(&mut stream, &Response::Done).await?;
                return super::events::carry(stream, events).await;
            }
            Request::Stop => {
                edge.let_go().await;
                frame::write(&mut stream, &Response::Done).await?;
                stop.cancel();
                return Ok(());
            }
            Request::Hello => Response::Hello(Hello {
                protocol: PROTOCOL_VERSION,
                build: edge.build().to_owned(),
                pid: std::process::id(),
                directory: Some(edge.place().directory().to_owned()),
            }),
            Request::Apply(config) => {
                // Runs to its end even if the daemon hangs up meanwhile.
                let edge = Arc::clone(&edge);
                let applied = tokio::spawn(async move { edge.apply(*config).await });
                match applied.await.map_err(io::Error::other)? {
                    Ok(applied) => Response::Applied(applied),
                    Err(rejected) => Response::Rejected(rejected),
                }
            }
            Request::Directory(update) => Response::Directory(edge.update_directory(update)),
            Request::Status => Response::Status(edge.status()),
            Request::Metrics => Response::Metrics(edge.metrics().report(edge.log().lost())),
            Request::ReloadCertificates => Response::Certificates(edge.reload_certificates().await),
        };
        frame::write(&mut stream, &response).await?;
    }
}
