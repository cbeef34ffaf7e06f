//! Connections with the agent, which end when the machine is saved.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use rustix::net::{Shutdown, shutdown};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

/// The connections of one machine.
#[derive(Debug, Default)]
pub(super) struct Connections(Mutex<Vec<Weak<UnixStream>>>);

impl Connections {
    /// Remembers a connection for as long as it is used.
    pub(super) fn add(&self, stream: UnixStream) -> Connection {
        let stream = Arc::new(stream);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| one.strong_count() > 0);
        all.push(Arc::downgrade(&stream));
        Connection(stream)
    }

    /// The guest has dropped its ends, and Firecracker keeps the host's: whoever reads or writes there is told now.
    pub(super) fn end(&self) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in all.drain(..).filter_map(|one| one.upgrade()) {
            // Fails only if it has ended already.
            let _ = shutdown(&*stream, Shutdown::Both);
        }
    }
}

/// The host's end of a connection.
pub(super) struct Connection(Arc<UnixStream>);

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(context))?;
            match self.0.try_read(buffer.initialize_unfilled()) {
                Ok(read) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(context))?;
            match self.0.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(shutdown(&*self.0, Shutdown::Write).map_err(io::Error::from))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn bytes_go_both_ways_until_it_is_ended() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let connections = Connections::default();
        let (mut reader, mut writer) = tokio::io::split(connections.add(ours));
        // More than a socket takes at once.
        let sent = vec![7; 4 << 20];
        let wanted = sent.clone();
        let echo = tokio::spawn(async move {
            let mut got = vec![0; wanted.len()];
            theirs.read_exact(&mut got).await.unwrap();
            assert!(got == wanted);
            theirs.write_all(b"all").await.unwrap();
            theirs
        });
        writer.write_all(&sent).await.unwrap();
        let mut answer = [0; 3];
        reader.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"all");
        // The other side stays as it is.
        let _theirs = echo.await.unwrap();
        let reading = tokio::spawn(async move { reader.read(&mut [0]).await });
        connections.end();
        let read = timeout(PATIENCE, reading).await.expect("an end").unwrap();
        assert_eq!(read.unwrap(), 0);
        assert!(writer.write_all(b"more").await.is_err());
    }

    #[tokio::test]
    async fn a_later_one_is_not_ended() {
        let connections = Connections::default();
        connections.end();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut ours = connections.add(ours);
        theirs.write_all(b"a").await.unwrap();
        assert_eq!(ours.read_u8().await.unwrap(), b'a');
        ours.shutdown().await.unwrap();
        assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0);
    }
}
