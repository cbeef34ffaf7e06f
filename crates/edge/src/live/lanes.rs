//! Threads for clients of ingress, each with a runtime of its own.
//!
//! A client's connection, the work on its requests and the connections to guests that these take all stay on one
//! thread. On a runtime that moves tasks about, or with more threads, each is woken more often and does less each time,
//! and that is what a request costs most of.

use std::io;
use std::net::TcpStream as StdStream;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// One of the threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Lane(usize);

/// All of them. They end when they are told to, or nobody has this any more.
#[derive(Debug)]
pub(crate) struct Lanes {
    handles: Vec<Handle>,
    turn: AtomicUsize,
    stop: CancellationToken,
}

impl Lanes {
    pub(crate) fn start(count: NonZeroUsize) -> io::Result<Self> {
        let mut lanes = Self {
            handles: Vec::with_capacity(count.get()),
            turn: AtomicUsize::new(0),
            stop: CancellationToken::new(),
        };
        for _ in 0..count.get() {
            lanes.handles.push(start(lanes.stop.clone())?);
        }
        Ok(lanes)
    }

    /// Has the thread whose turn it is do `work` with a connection that was accepted elsewhere.
    pub(crate) fn spawn<W>(
        &self,
        stream: TcpStream,
        work: impl FnOnce(Lane, TcpStream) -> W + Send + 'static,
    ) -> io::Result<()>
    where
        W: Future<Output = ()> + Send,
    {
        let stream: StdStream = stream.into_std()?;
        let lane = self.turn.fetch_add(1, Ordering::Relaxed) % self.handles.len();
        self.handles[lane].spawn(async move {
            // Registers it with this thread's poller, which fails only without memory.
            match TcpStream::from_std(stream) {
                Ok(stream) => work(Lane(lane), stream).await,
                Err(error) => tracing::warn!(%error, "a client is not served"),
            }
        });
        Ok(())
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.handles.len()
    }

    /// Ends all connections and the threads.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }
}

/// A thread that works until `stop`. Its runtime is made and dropped there: it may not be where tasks run.
fn start(stop: CancellationToken) -> io::Result<Handle> {
    let (made, runtime) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name("ingress".into())
        .spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            // Whoever started it waits for this.
            match runtime {
                Ok(runtime) => {
                    drop(made.send(Ok(runtime.handle().clone())));
                    runtime.block_on(stop.cancelled());
                }
                Err(error) => drop(made.send(Err(error))),
            }
        })?;
    runtime.recv().map_err(io::Error::other)?
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.stop();
    }
}
