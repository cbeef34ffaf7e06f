//! Connections to ports of the guest through Firecracker's socket.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::layout::VSOCK;
use crate::VmmError;
use crate::machine::RunDir;

/// Port on which the agent in a guest listens.
pub const AGENT_PORT: u32 = 1024;

/// Port on which it gives the program's output.
pub(super) const LOG_PORT: u32 = 1025;

/// A port on which nothing of ours listens.
const KNOCK_PORT: u32 = 1023;

/// Firecracker gives up a connection that the guest has not answered after two seconds (its `CONN_REQUEST_TIMEOUT_MS`).
/// What took nearly as long may have been no answer of the guest.
const GIVEN_UP: Duration = Duration::from_millis(1500);

/// Between two tries while nothing in the guest listens.
const RETRY: Duration = Duration::from_millis(5);

/// `OK`, a port number and the end of the line.
const MAX_ANSWER_BYTES: usize = 32;

/// Connects to the agent, trying again while it does not listen yet. The caller sets the deadline.
pub(super) async fn connect(run_dir: &RunDir, settled: &Settled) -> Result<UnixStream, VmmError> {
    loop {
        if let Some(stream) = settled.try_connect(run_dir, AGENT_PORT).await? {
            return Ok(stream);
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Whether the guest has dropped the connections that it had when it was saved.
///
/// A machine that was saved finds a reset among its events when it goes on, here or elsewhere, and ends all connections
/// that it has at that moment. Its kernel looks at requests before it looks at events: a connection that was asked for
/// early would be accepted, and ended right after that.
#[derive(Debug)]
pub(super) struct Settled {
    /// How often the machine was saved, as far as this handle knows.
    saved: AtomicU64,
    /// How often it had been when it last answered.
    answered: AtomicU64,
    given_up: Duration,
}

impl Settled {
    /// Of a machine that may have been saved.
    pub(super) fn unknown() -> Self {
        Self {
            saved: AtomicU64::new(1),
            answered: AtomicU64::new(0),
            given_up: GIVEN_UP,
        }
    }

    /// The machine was saved.
    pub(super) fn not_any_more(&self) {
        self.saved.fetch_add(1, Ordering::AcqRel);
    }

    /// Connects to a port of a guest that has settled; none if nothing listens there. The caller sets the deadline.
    pub(super) async fn try_connect(
        &self,
        run_dir: &RunDir,
        port: u32,
    ) -> Result<Option<UnixStream>, VmmError> {
        self.wait(run_dir).await?;
        try_connect(run_dir, port).await
    }

    /// Waits until the guest has answered a request that is for nobody, and by this has looked into its queues.
    async fn wait(&self, run_dir: &RunDir) -> Result<(), VmmError> {
        loop {
            let saved = self.saved.load(Ordering::Acquire);
            if self.answered.load(Ordering::Acquire) == saved {
                return Ok(());
            }
            let asked = Instant::now();
            let answered = match ask_for(run_dir, KNOCK_PORT).await? {
                Answer::Accepted(_) => true,
                Answer::Refused => asked.elapsed() < self.given_up,
                Answer::Absent => {
                    tokio::time::sleep(RETRY).await;
                    false
                }
            };
            if answered {
                self.answered.store(saved, Ordering::Release);
            }
        }
    }
}

/// Connects to a port of the guest; none if nothing listens there, or the socket itself is not there. It is as long as
/// the machine, and a VMM that has removed it is not asked more often than one whose guest does not listen.
async fn try_connect(run_dir: &RunDir, port: u32) -> Result<Option<UnixStream>, VmmError> {
    Ok(match ask_for(run_dir, port).await? {
        Answer::Accepted(stream) => Some(stream),
        Answer::Refused | Answer::Absent => None,
    })
}

/// What came of asking for a connection.
enum Answer {
    Accepted(UnixStream),
    Refused,
    /// There was nobody to ask.
    Absent,
}

async fn ask_for(run_dir: &RunDir, port: u32) -> Result<Answer, VmmError> {
    let Some(mut stream) = run_dir.connect_now(VSOCK).await? else {
        return Ok(Answer::Absent);
    };
    Ok(match is_accepted(&mut stream, port).await {
        true => Answer::Accepted(stream),
        false => Answer::Refused,
    })
}

/// Firecracker closes the connection if the guest refuses, or does not answer for two seconds.
async fn is_accepted(stream: &mut UnixStream, port: u32) -> bool {
    let request = format!("CONNECT {port}\n");
    if stream.write_all(request.as_bytes()).await.is_err() {
        return false;
    }
    // Byte by byte: what follows the line is the agent's.
    let mut answer = Vec::new();
    while answer.last() != Some(&b'\n') {
        match stream.read_u8().await {
            Ok(byte) if answer.len() < MAX_ANSWER_BYTES => answer.push(byte),
            Ok(_) | Err(_) => return false,
        }
    }
    answer.starts_with(b"OK ")
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn without_a_socket_there_is_no_connection_and_no_wait_for_one() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::open(dir.path()).unwrap();
        let tried = async || timeout(PATIENCE, try_connect(&run_dir, AGENT_PORT)).await;
        assert!(tried().await.expect("an answer").unwrap().is_none());
        drop(UnixListener::bind(dir.path().join(VSOCK)).unwrap());
        assert!(tried().await.expect("an answer").unwrap().is_none());
    }

    /// A jailed VMM may say what it likes.
    #[tokio::test]
    async fn an_answer_without_end_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::open(dir.path()).unwrap();
        let vsock = UnixListener::bind(dir.path().join(VSOCK)).unwrap();
        let talk = tokio::spawn(async move {
            let (mut stream, _) = vsock.accept().await.unwrap();
            while stream.write_all(b"OK OK OK ").await.is_ok() {}
        });
        let tried = timeout(PATIENCE, try_connect(&run_dir, AGENT_PORT)).await;
        assert!(tried.expect("an answer").unwrap().is_none());
        timeout(PATIENCE, talk).await.expect("an end").unwrap();
    }

    /// However late an answer comes on a busy host, it is one.
    fn patient() -> Settled {
        Settled {
            given_up: PATIENCE,
            ..Settled::unknown()
        }
    }

    /// Firecracker's side of the socket.
    struct Guest {
        vsock: UnixListener,
        _dir: tempfile::TempDir,
        run_dir: RunDir,
    }

    impl Guest {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            Self {
                vsock: UnixListener::bind(dir.path().join(VSOCK)).unwrap(),
                run_dir: RunDir::open(dir.path()).unwrap(),
                _dir: dir,
            }
        }

        /// The next connection, and the line that it begins with.
        async fn asked(&self) -> (UnixStream, String) {
            let asked = async {
                let (mut stream, _) = self.vsock.accept().await.unwrap();
                let mut line = [0; 13];
                stream.read_exact(&mut line).await.unwrap();
                (stream, String::from_utf8_lossy(&line).into_owned())
            };
            timeout(PATIENCE, asked).await.expect("a connection")
        }

        async fn refuses(&self, port: u32) {
            let (_, line) = self.asked().await;
            assert_eq!(line, format!("CONNECT {port}\n"));
        }

        async fn accepts(&self, port: u32) {
            let (mut stream, line) = self.asked().await;
            assert_eq!(line, format!("CONNECT {port}\n"));
            stream.write_all(b"OK 1073741824\n").await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_guest_that_was_saved_answers_a_knock_before_it_gets_a_connection() {
        let guest = Guest::new();
        let settled = patient();
        let dials = async {
            connect(&guest.run_dir, &settled).await.unwrap();
            // It has answered once: this one is asked at once.
            connect(&guest.run_dir, &settled).await.unwrap();
            settled.not_any_more();
            connect(&guest.run_dir, &settled).await.unwrap();
        };
        let answers = async {
            guest.refuses(KNOCK_PORT).await;
            // The agent does not listen yet.
            guest.refuses(AGENT_PORT).await;
            guest.accepts(AGENT_PORT).await;
            guest.accepts(AGENT_PORT).await;
            // A program that listens there is an answer as well.
            guest.accepts(KNOCK_PORT).await;
            guest.accepts(AGENT_PORT).await;
        };
        tokio::join!(dials, answers);
    }

    /// The guest is behind the socket: without one, nobody has answered.
    #[tokio::test]
    async fn a_knock_that_nobody_hears_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::open(dir.path()).unwrap();
        let settled = patient();
        let dials = connect(&run_dir, &settled);
        let answers = async {
            // Polled after the dial, which has found nothing by now.
            let guest = Guest {
                vsock: UnixListener::bind(dir.path().join(VSOCK)).unwrap(),
                run_dir: RunDir::open(dir.path()).unwrap(),
                _dir: tempfile::tempdir().unwrap(),
            };
            guest.refuses(KNOCK_PORT).await;
            guest.accepts(AGENT_PORT).await;
        };
        let (dialled, ()) = tokio::join!(dials, answers);
        dialled.unwrap();
    }

    #[tokio::test]
    async fn a_knock_that_only_firecracker_answers_is_none() {
        let guest = Guest::new();
        // However early it comes, it comes late.
        let settled = Settled {
            given_up: Duration::ZERO,
            ..Settled::unknown()
        };
        let dials = async { connect(&guest.run_dir, &settled).await.map(drop) };
        let answers = async {
            guest.refuses(KNOCK_PORT).await;
            guest.refuses(KNOCK_PORT).await;
            guest.accepts(KNOCK_PORT).await;
            guest.accepts(AGENT_PORT).await;
        };
        let (dialled, ()) = tokio::join!(dials, answers);
        dialled.unwrap();
    }
}
