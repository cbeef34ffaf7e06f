//! Puts what a fake agent says on the wire.

use protocol::{ToHost, encode};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// Writes what is queued, of the newest queue alone; ends when nobody can queue any more.
pub(super) async fn write<W: AsyncWrite + Unpin>(
    mut writer: W,
    mut queue: mpsc::Receiver<ToHost>,
    mut replaced: mpsc::Receiver<mpsc::Receiver<ToHost>>,
) {
    loop {
        let message = tokio::select! {
            biased;
            Some(newer) = replaced.recv() => {
                queue = newer;
                continue;
            }
            message = queue.recv() => message,
        };
        let Some(message) = message else { return };
        let mut frame = Vec::new();
        if encode(&message, &mut frame).is_err() || writer.write_all(&frame).await.is_err() {
            return;
        }
    }
}
