//! The daemon's side of the process: finding it, starting it, replacing it.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::{EDGE_COMMAND, Lock, Place};
use crate::control::{Client, ClientError, Hello, PROTOCOL_VERSION};

/// For a process to serve its socket, and for one that was told to end to let go.
const DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks at a socket that is not served yet.
const LOOK: Duration = Duration::from_millis(5);
/// The process's own log is moved aside at a start when it has more bytes.
const LOG_BYTES: u64 = 8 << 20;

/// How an edge is started.
#[derive(Debug, Clone)]
pub struct Start {
    /// Its directory.
    pub place: Place,
    /// The program, usually the daemon's own.
    pub program: PathBuf,
    /// Words before the edge's own; `[EDGE_COMMAND]` unless the program says otherwise.
    pub arguments: Vec<OsString>,
    /// Names what the program was built from. An edge of another build is replaced.
    pub build: String,
}

impl Start {
    /// As the given program's `__edge` role.
    #[must_use]
    pub fn new(place: Place, program: impl Into<PathBuf>, build: impl Into<String>) -> Self {
        Self {
            place,
            program: program.into(),
            arguments: vec![EDGE_COMMAND.into()],
            build: build.into(),
        }
    }
}

/// How an edge came to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It was running.
    Running,
    /// None was running.
    Started,
    /// One of another build, or one whose directory was moved, was running and was told to end. What was open there goes on; the
    /// new one listens from the last document on.
    Replaced,
}

/// Why there is no edge.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The program could not be started.
    #[error("cannot start the edge {program}")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// The process ended at once.
    #[error("the edge ended with {status}; {log} says why")]
    Ended {
        /// Its exit status.
        status: String,
        /// Its log.
        log: PathBuf,
    },
    /// It holds its lock and does not answer.
    #[error("an edge (lock {lock}) runs but does not answer; end it by hand")]
    Stuck {
        /// Its lock.
        lock: PathBuf,
    },
    /// The directory cannot be used.
    #[error("cannot use {directory}")]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
}

/// Finds the edge of a directory, or starts one, or replaces one of another build or place.
/// It outlives the caller. Send the whole directory of instances afterwards: until then a started
/// edge holds requests back.
///
/// # Errors
///
/// [`StartError`] says what to do.
pub async fn ensure(start: &Start) -> Result<(Client, Found), StartError> {
    let client = Client::new(start.place.socket());
    let found = match client.hello().await {
        Ok(hello) if is_wanted(&hello, start) => {
            return Ok((client, Found::Running));
        }
        Ok(_) | Err(ClientError::Unexpected(_)) => {
            // Whether it let go is seen at its lock, which the new process needs anyway.
            let _ = client.stop().await;
            Found::Replaced
        }
        Err(ClientError::Io { .. } | ClientError::Silent(_)) => Found::Started,
    };
    wait_for_lock(&start.place).await?;
    spawn(start, &client).await?;
    Ok((client, found))
}

/// Whether it is of the same build, and knows where its directory is: one that was moved is found by
/// its socket, but keeps its files where the directory was.
fn is_wanted(hello: &Hello, start: &Start) -> bool {
    let identity = |path: &Path| {
        let directory = std::fs::metadata(path).ok()?;
        Some((directory.dev(), directory.ino()))
    };
    let known = hello.directory.as_deref().and_then(identity);
    hello.protocol == PROTOCOL_VERSION
        && hello.build == start.build
        && known.is_some()
        && known == identity(start.place.directory())
}

async fn wait_for_lock(place: &Place) -> Result<(), StartError> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match Lock::take(place) {
            // Given back at once; whoever takes it between us and the new process is an edge too.
            Ok(Some(_lock)) => {
                // Whoever still answers there is on its way out, and not who is waited for.
                let _ = std::fs::remove_file(place.socket());
                return Ok(());
            }
            Ok(None) if Instant::now() > deadline => {
                return Err(StartError::Stuck { lock: place.lock() });
            }
            Ok(None) => sleep(LOOK).await,
            Err(source) => {
                return Err(StartError::Directory {
                    directory: place.directory().to_owned(),
                    source,
                });
            }
        }
    }
}

async fn spawn(start: &Start, client: &Client) -> Result<(), StartError> {
    let wrong = |source| StartError::Spawn {
        program: start.program.clone(),
        source,
    };
    let log = open_log(&start.place).map_err(wrong)?;
    // The process stands in the root directory, so that it holds no other.
    let directory = std::path::absolute(start.place.directory()).map_err(wrong)?;
    let mut command = Command::new(&start.program);
    command
        .args(&start.arguments)
        .arg(directory)
        .arg(&start.build)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(wrong)?)
        .stderr(log);
    let mut child = command.spawn().map_err(wrong)?;
    let deadline = Instant::now() + DEADLINE;
    loop {
        if client.hello().await.is_ok() {
            // Waited for by the runtime when it ends before us; adopted by init when we do.
            drop(child);
            return Ok(());
        }
        if let Some(status) = child.try_wait().map_err(wrong)? {
            return Err(StartError::Ended {
                status: status.to_string(),
                log: start.place.log(),
            });
        }
        if Instant::now() > deadline {
            let _ = child.kill().await;
            return Err(StartError::Ended {
                status: "no answer".to_owned(),
                log: start.place.log(),
            });
        }
        sleep(LOOK).await;
    }
}

fn open_log(place: &Place) -> io::Result<std::fs::File> {
    let path = place.log();
    if std::fs::metadata(&path).is_ok_and(|log| log.len() > LOG_BYTES) {
        std::fs::rename(&path, path.with_extension("log.1"))?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}
