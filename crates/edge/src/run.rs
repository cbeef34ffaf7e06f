//! The life of an edge from its lock to its end.

use std::io;
use std::num::NonZeroUsize;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::control;
use crate::live::Edge;
use crate::process::{Lock, Place};

/// Between two looks at what waits to be done: sockets that could not be opened, idle connections
/// to guests, the directory's file.
const TICK: Duration = Duration::from_secs(1);

/// How an edge runs.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Its directory.
    pub place: Place,
    /// Told in [`Hello`](crate::Hello).
    pub build: String,
    /// Do not believe the directory of instances on disk but hold requests back until the daemon
    /// sends one. For a start by the daemon, which may have moved instances since.
    pub wait_for_directory: bool,
    /// Threads that clients of ingress are dealt out to.
    pub ingress_threads: NonZeroUsize,
}

/// Why an edge does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another edge has the directory.
    #[error("another edge runs in {0}")]
    Locked(String),
    /// The directory or socket cannot be used.
    #[error("cannot use {what}")]
    Io {
        /// Which file.
        what: String,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// No runtime.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
}

/// Serves until told to end by [`Client::stop`](crate::Client::stop), SIGTERM or SIGINT.
///
/// # Errors
///
/// If the directory is taken or cannot be used. What cannot be opened of the last document is no
/// error: it is tried again and told in [`Status`](crate::Status).
pub async fn run(options: RunOptions) -> Result<(), RunError> {
    let place = options.place.clone();
    let io = |what: std::path::PathBuf| {
        move |source| RunError::Io {
            what: what.display().to_string(),
            source,
        }
    };
    let lock = Lock::take(&place).map_err(io(place.lock()))?;
    let lock = lock.ok_or_else(|| RunError::Locked(place.directory().display().to_string()))?;
    let listener = control::open(&place.socket()).map_err(io(place.socket()))?;
    let edge = Edge::new(&options, lock).map_err(io(place.access_log()))?;
    edge.restore(options.wait_for_directory).await;
    tracing::info!(build = options.build, "the edge serves");

    let stop = CancellationToken::new();
    let control = tokio::spawn(control::serve(
        listener,
        std::sync::Arc::clone(&edge),
        stop.clone(),
    ));
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Runtime)?;
    // A terminal that goes away is no reason to end.
    let mut hangup = signal(SignalKind::hangup()).map_err(RunError::Runtime)?;
    let mut tick = interval(TICK);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {}
            _ = tick.tick() => edge.tick().await,
        }
    }
    edge.let_go().await;
    control.abort();
    // The next edge may serve already; what is open here is finished first.
    tokio::select! {
        () = edge.finished() => {}
        () = sleep(edge.live().config.ingress.limits.drain()) => {}
    }
    edge.lanes().stop();
    edge.close_log().await;
    tracing::info!("the edge ended");
    Ok(())
}
