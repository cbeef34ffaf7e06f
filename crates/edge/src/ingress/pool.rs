//! Connections to guests that are used for several requests.
//!
//! A connection belongs to one generation of one instance. When that is over its task ends and the
//! connection with it, whatever it was doing; and a new generation never finds one of an old one,
//! for the generation is part of the key.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use model::InstanceId;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::body::RequestBody;
use crate::directory::Known;
use crate::live::{Edge, Lane};

/// An idle connection is not used after this: common servers close theirs after five seconds, and
/// a request that crosses with that is lost.
const MAX_IDLE: Duration = Duration::from_secs(4);
/// For a connection whose answer is complete to be ready for the next request.
const READY: Duration = Duration::from_millis(20);

/// Whom a connection leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    id: InstanceId,
    generation: u64,
    address: SocketAddr,
    /// Only requests of the thread that it lives on find it.
    lane: Lane,
}

impl Key {
    pub(super) fn new(known: &Known, address: SocketAddr, lane: Lane) -> Self {
        Self {
            id: known.entry.id.clone(),
            generation: known.entry.generation,
            address,
            lane,
        }
    }
}

#[derive(Debug)]
struct IdleConnection {
    sender: SendRequest<RequestBody>,
    since: Instant,
}

/// Idle connections.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<HashMap<Key, Vec<IdleConnection>>>);

impl Pool {
    fn idle(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Vec<IdleConnection>>> {
        // Single insertions and removals: good whatever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes what was idle for too long or is broken.
    pub(crate) fn sweep(&self) {
        self.idle().retain(|_, connections| {
            connections.retain(|one| !one.sender.is_closed() && one.since.elapsed() < MAX_IDLE);
            !connections.is_empty()
        });
    }

    fn take(&self, key: &Key) -> Option<SendRequest<RequestBody>> {
        let mut idle = self.idle();
        let connections = idle.get_mut(key)?;
        // The youngest first, so that those that are not needed grow old.
        while let Some(one) = connections.pop() {
            if !one.sender.is_closed() && one.since.elapsed() < MAX_IDLE {
                return Some(one.sender);
            }
        }
        None
    }

    fn give(&self, key: Key, sender: SendRequest<RequestBody>, most: usize) {
        let mut idle = self.idle();
        let connections = idle.entry(key).or_default();
        if connections.len() < most {
            let since = Instant::now();
            connections.push(IdleConnection { sender, since });
        }
    }
}

/// A connection in use for one request.
#[derive(Debug)]
pub(super) struct Borrowed {
    edge: Arc<Edge>,
    key: Key,
    pub(super) sender: SendRequest<RequestBody>,
    /// Whether another request was on it before.
    pub(super) reused: bool,
}

impl Borrowed {
    /// An idle connection, or none.
    pub(super) async fn idle(edge: &Arc<Edge>, key: &Key) -> Option<Self> {
        loop {
            let mut sender = edge.pool().take(key)?;
            // As a rule it is ready; one that was given back just now may need a moment, and one
            // whose last request is still being sent is of no use.
            let ready =
                sender.is_ready() || matches!(timeout(READY, sender.ready()).await, Ok(Ok(())));
            if ready {
                return Some(Self {
                    edge: Arc::clone(edge),
                    key: key.clone(),
                    sender,
                    reused: true,
                });
            }
        }
    }

    /// A new connection.
    pub(super) async fn open(edge: &Arc<Edge>, key: &Key, known: &Known) -> io::Result<Self> {
        let opened = open(edge, key, known).await;
        let metrics = edge.metrics();
        match opened {
            Ok(sender) => {
                metrics.guest_connections_opened.one();
                Ok(Self {
                    edge: Arc::clone(edge),
                    key: key.clone(),
                    sender,
                    reused: false,
                })
            }
            Err(error) => {
                metrics.guest_connections_failed.one();
                Err(error)
            }
        }
    }

    /// The request on it is over, its answer is complete.
    pub(super) fn give_back(self) {
        let most = self
            .edge
            .live()
            .config
            .ingress
            .limits
            .idle_guest_connections;
        // Each thread has its part of them.
        let most = most.div_ceil(self.edge.lanes().count());
        self.edge.pool().give(self.key, self.sender, most);
    }
}

async fn open(edge: &Arc<Edge>, key: &Key, known: &Known) -> io::Result<SendRequest<RequestBody>> {
    let limit = edge.live().config.ingress.limits.connect();
    let stream = match timeout(limit, TcpStream::connect(key.address)).await {
        Ok(stream) => stream?,
        Err(_) => return Err(io::ErrorKind::TimedOut.into()),
    };
    stream.set_nodelay(true)?;
    let handshake = http1::Builder::new().handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(io::Error::other)?;
    let held = edge.metrics().guest_connections.hold();
    let ended = known.ended.clone();
    tokio::spawn(async move {
        // Errors reach whoever waits for the answer.
        tokio::select! {
            _ = connection.with_upgrades() => {}
            () = ended.cancelled() => {}
        }
        drop(held);
    });
    Ok(sender)
}
