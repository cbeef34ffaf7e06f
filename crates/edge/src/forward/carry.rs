//! Bytes both ways between two connections.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use crate::live::Lifetime;

/// Bytes under way in each direction.
const BUFFER: usize = 32 << 10;

/// What ends a pair of connections, apart from the two themselves.
pub(crate) struct Ended {
    /// The instance moved, slept or ended.
    pub(crate) generation: CancellationToken,
    /// The socket that the client came in by is retired.
    pub(crate) lifetime: Lifetime,
    /// Without a byte in either direction.
    pub(crate) idle: Duration,
}

/// Carries bytes until both directions are closed or something ends the pair. Returns how many.
pub(crate) async fn carry<A, B>(client: A, mut guest: B, ended: Ended) -> u64
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let passed = Arc::new(AtomicU64::new(0));
    let mut client = Counted {
        stream: client,
        passed: Arc::clone(&passed),
    };
    let silent = async {
        let mut look = interval(ended.idle);
        look.tick().await;
        let mut before = 0;
        loop {
            look.tick().await;
            let now = passed.load(Ordering::Relaxed);
            if now == before {
                return;
            }
            before = now;
        }
    };
    tokio::select! {
        // Either side may break at any time; whoever is behind it sees that.
        _ = copy_bidirectional_with_sizes(&mut client, &mut guest, BUFFER, BUFFER) => {}
        () = ended.generation.cancelled() => {}
        () = ended.lifetime.over() => {}
        () = silent => {}
    }
    passed.load(Ordering::Relaxed)
}

/// One of the two, where all bytes pass.
struct Counted<S> {
    stream: S,
    passed: Arc<AtomicU64>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let bytes = buf.filled().len().saturating_sub(before) as u64;
        self.passed.fetch_add(bytes, Ordering::Relaxed);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(bytes)) = &written {
            self.passed.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
