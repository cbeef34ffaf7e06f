//! Connections to ports of the guest through Firecracker's socket.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::layout::VSOCK;
use crate::VmmError;
use crate::machine::RunDir;

/// Port on which the agent in a guest listens.
pub const AGENT_PORT: u32 = 1024;

/// Port on which it gives the program's output.
pub(super) const LOG_PORT: u32 = 1025;

/// Between two tries while nothing in the guest listens.
const RETRY: Duration = Duration::from_millis(5);

/// `OK`, a port number and the end of the line.
const MAX_ANSWER_BYTES: usize = 32;

/// Connects to the agent, trying again while it does not listen yet. The caller sets the deadline.
pub(super) async fn connect(run_dir: &RunDir) -> Result<UnixStream, VmmError> {
    loop {
        if let Some(stream) = try_connect(run_dir, AGENT_PORT).await? {
            return Ok(stream);
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Connects to a port of the guest; none if nothing listens there, or the socket itself is not there. It is as long as
/// the machine, and a VMM that has removed it is not asked more often than one whose guest does not listen.
pub(super) async fn try_connect(
    run_dir: &RunDir,
    port: u32,
) -> Result<Option<UnixStream>, VmmError> {
    let Some(mut stream) = run_dir.connect_now(VSOCK).await? else {
        return Ok(None);
    };
    let accepted = is_accepted(&mut stream, port).await;
    Ok(accepted.then_some(stream))
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
}
