//! The task that moves bytes between a stream and the router. One per connection; it ends with the
//! stream, or when the last link and session of the connection are dropped.

use std::sync::Arc;

use protocol::{Decoder, ToHost, encode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use crate::LinkError;
use crate::handshake::Greeted;
use crate::router::Router;

/// Bytes read at a time: two full data messages.
pub(crate) const READ_BUFFER: usize = 64 * 1024;

/// Frames that may wait to be written. With the largest data messages about 1 MiB.
pub(crate) const WRITE_QUEUE: usize = 32;

/// Starts the task.
pub(crate) fn spawn<S>(greeted: Greeted<S>, router: Arc<Router>, frames: mpsc::Receiver<Vec<u8>>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Greeted {
        stream,
        decoder,
        rest,
        ..
    } = greeted;
    let (reader, writer) = tokio::io::split(stream);
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = receive(reader, decoder, rest, &router) => ended,
            ended = send(writer, frames, &router) => ended,
        };
        router.close();
        match ended {
            Ok(()) | Err(LinkError::Closed) => tracing::debug!("guest link closed"),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "guest link failed"
            ),
        }
    });
}

async fn receive<S: AsyncRead>(
    mut reader: ReadHalf<S>,
    mut decoder: Decoder<ToHost>,
    rest: Vec<u8>,
    router: &Router,
) -> Result<(), LinkError> {
    deliver(&mut decoder, &rest, router)?;
    drop(rest);
    let mut buffer = vec![0; READ_BUFFER];
    loop {
        let len = reader.read(&mut buffer).await?;
        if len == 0 {
            return Err(LinkError::Closed);
        }
        deliver(&mut decoder, &buffer[..len], router)?;
    }
}

fn deliver(
    decoder: &mut Decoder<ToHost>,
    mut input: &[u8],
    router: &Router,
) -> Result<(), LinkError> {
    while let Some(frame) = decoder.decode(&mut input) {
        router.deliver(frame?)?;
    }
    Ok(())
}

async fn send<S: AsyncWrite>(
    mut writer: WriteHalf<S>,
    mut frames: mpsc::Receiver<Vec<u8>>,
    router: &Router,
) -> Result<(), LinkError> {
    let mut out = Vec::new();
    let mut open = true;
    while open {
        out.clear();
        tokio::select! {
            frame = frames.recv() => match frame {
                Some(frame) => out = frame,
                None => open = false,
            },
            () = router.noted() => {}
        }
        // A session is opened by a queued frame; notes about it must not overtake that.
        while let Ok(frame) = frames.try_recv() {
            out.extend_from_slice(&frame);
        }
        for note in router.take_notes() {
            encode(&note, &mut out)?;
        }
        writer.write_all(&out).await?;
        writer.flush().await?;
    }
    Ok(())
}
