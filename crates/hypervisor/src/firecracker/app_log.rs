//! The program's output: the agent gives it on a vsock port of its own, and it is written to the machine's log here.
//!
//! Firecracker keeps nothing of it, so the agent keeps what nobody has taken for good. A receipt, the number of bytes
//! as 32 bits with the lowest byte first, follows each piece that is in the file; what has none comes again on the next
//! connection. While no daemon is there the program waits once its pipe is full.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::vsock::{LOG_PORT, Settled};
use crate::machine::RunDir;

/// Between two tries to connect, at first and at most. A guest has its agent some tenths of a second after it was
/// started, and one without a port for output is not worth more than a look from time to time.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Bytes taken at a time; the agent keeps no more than 16 KiB.
const PIECE: usize = 16 << 10;

/// Follows the output of a machine until it is dropped, or the machine ends.
#[derive(Debug)]
pub(super) struct AppLog {
    task: JoinHandle<()>,
    again: Arc<Notify>,
}

impl AppLog {
    /// Follows it into `log`, which is appended to. Output that the machine gave while nobody did comes first.
    pub(super) fn follow(
        run_dir: Arc<RunDir>,
        settled: Arc<Settled>,
        log: PathBuf,
        ended: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let again = Arc::new(Notify::new());
        let told = Arc::clone(&again);
        let task =
            tokio::spawn(async move { follow(&run_dir, &settled, &log, &told, ended).await });
        Self { task, again }
    }

    /// The machine was saved: its end of the connection is gone, and nobody tells this end.
    pub(super) fn reconnect(&self) {
        self.again.notify_one();
    }
}

impl Drop for AppLog {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection that the guest has ended since would be waited on for ever: it is only read from. So only one that has
/// settled is connected to.
async fn follow(
    run_dir: &RunDir,
    settled: &Settled,
    log: &Path,
    again: &Notify,
    ended: impl Future<Output = ()>,
) {
    let mut ended = std::pin::pin!(ended);
    let mut pause = FIRST_PAUSE;
    loop {
        // A machine that has ended leaves a socket that nobody listens on.
        let stream = tokio::select! {
            () = &mut ended => return,
            () = again.notified() => continue,
            stream = settled.try_connect(run_dir, LOG_PORT) => stream,
        };
        let taken = match stream {
            // What the guest said before its end is read to the end.
            Ok(Some(stream)) => tokio::select! {
                () = again.notified() => continue,
                taken = take(stream, log) => taken,
            },
            Ok(None) | Err(_) => 0,
        };
        pause = match taken {
            0 => (pause * 2).min(LONGEST_PAUSE),
            _ => FIRST_PAUSE,
        };
        tokio::select! {
            () = &mut ended => return,
            () = again.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Takes output until the connection ends; gives the number of bytes.
async fn take(mut stream: UnixStream, log: &Path) -> u64 {
    let mut bytes = vec![0; PIECE];
    let mut taken = 0;
    let mut lost = false;
    loop {
        let length = match stream.read(&mut bytes).await {
            Ok(0) | Err(_) => return taken,
            Ok(length) => length,
        };
        if let Err(error) = append(log, &bytes[..length])
            && !lost
        {
            // A full disk must not stop the guest.
            tracing::warn!(%error, log = %log.display(), "output of a program is lost");
            lost = true;
        }
        taken += length as u64;
        // A piece has 16 KiB.
        let receipt = (length as u32).to_le_bytes();
        if stream.write_all(&receipt).await.is_err() {
            return taken;
        }
    }
}

/// A few pages into the page cache; blocks no longer than other work of a task.
fn append(log: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(log)?;
    file.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;
    use tokio::time::timeout;

    use super::super::layout::VSOCK;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Firecracker's side: what connects to the log's port is an agent's line.
    struct Guest {
        vsock: UnixListener,
        dir: tempfile::TempDir,
    }

    impl Guest {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let vsock = UnixListener::bind(dir.path().join(VSOCK)).unwrap();
            Self { vsock, dir }
        }

        fn log(&self) -> PathBuf {
            self.dir.path().join("app.log")
        }

        fn follow(&self) -> AppLog {
            let run_dir = Arc::new(RunDir::open(self.dir.path()).unwrap());
            let settled = Arc::new(Settled::unknown());
            AppLog::follow(run_dir, settled, self.log(), std::future::pending())
        }

        /// The next connection for output, after its request. A knock is refused.
        async fn connected(&self) -> UnixStream {
            let connected = async {
                loop {
                    let (mut stream, _) = self.vsock.accept().await.unwrap();
                    let mut request = [0; 13];
                    stream.read_exact(&mut request).await.unwrap();
                    if &request == b"CONNECT 1025\n" {
                        stream.write_all(b"OK 1073741824\n").await.unwrap();
                        return stream;
                    }
                    assert_eq!(&request, b"CONNECT 1023\n");
                }
            };
            timeout(PATIENCE, connected).await.expect("a connection")
        }

        fn written(&self) -> String {
            std::fs::read_to_string(self.log()).unwrap_or_default()
        }
    }

    async fn receipts(stream: &mut UnixStream, wanted: u32) {
        let mut sum = 0;
        while sum < wanted {
            let receipt = timeout(PATIENCE, stream.read_u32_le()).await;
            sum += receipt.expect("a receipt").unwrap();
        }
        assert_eq!(sum, wanted);
    }

    #[tokio::test]
    async fn output_is_in_the_file_when_its_receipt_comes() {
        let guest = Guest::new();
        let _follower = guest.follow();
        let mut line = guest.connected().await;
        for (output, whole) in [("one\n", "one\n"), ("two\n", "one\ntwo\n")] {
            line.write_all(output.as_bytes()).await.unwrap();
            receipts(&mut line, output.len() as u32).await;
            assert_eq!(guest.written(), whole);
        }
        let much = "x".repeat(100_000);
        let (mut reader, mut writer) = line.into_split();
        let write = async { writer.write_all(much.as_bytes()).await.unwrap() };
        let read = async {
            let mut sum = 0;
            while sum < 100_000 {
                sum += timeout(PATIENCE, reader.read_u32_le())
                    .await
                    .unwrap()
                    .unwrap();
            }
        };
        tokio::join!(write, read);
        assert_eq!(guest.written().len(), 8 + 100_000);
    }

    #[tokio::test]
    async fn a_line_that_ends_is_made_anew() {
        let guest = Guest::new();
        let _follower = guest.follow();
        let mut line = guest.connected().await;
        line.write_all(b"before ").await.unwrap();
        receipts(&mut line, 7).await;
        drop(line);
        // The guest is not ready yet.
        drop(guest.connected().await);
        let mut line = guest.connected().await;
        line.write_all(b"after").await.unwrap();
        receipts(&mut line, 5).await;
        assert_eq!(guest.written(), "before after");
    }

    /// A machine that was saved has no end of the line any more, and this one is not told.
    #[tokio::test]
    async fn the_line_of_a_saved_machine_is_dropped_for_another_one() {
        let guest = Guest::new();
        let follower = guest.follow();
        let mut dead = guest.connected().await;
        follower.reconnect();
        let _line = guest.connected().await;
        let ended = timeout(PATIENCE, dead.read(&mut [0])).await.unwrap();
        // Words of the guest that nobody has read make it a reset.
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }

    #[tokio::test]
    async fn a_disk_that_takes_nothing_does_not_stop_the_guest() {
        let guest = Guest::new();
        std::fs::create_dir(guest.log()).unwrap();
        let _follower = guest.follow();
        let mut line = guest.connected().await;
        line.write_all(b"lost").await.unwrap();
        receipts(&mut line, 4).await;
    }

    #[tokio::test]
    async fn it_ends_with_the_machine() {
        let guest = Guest::new();
        let run_dir = Arc::new(RunDir::open(guest.dir.path()).unwrap());
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let ended = async { ended.await.unwrap_or_default() };
        let settled = Arc::new(Settled::unknown());
        let mut follower = AppLog::follow(run_dir, settled, guest.log(), ended);
        let mut line = guest.connected().await;
        line.write_all(b"first words, ").await.unwrap();
        receipts(&mut line, 13).await;
        end.send(()).unwrap();
        line.write_all(b"last words").await.unwrap();
        receipts(&mut line, 10).await;
        drop((line, guest.vsock));
        let task = timeout(PATIENCE, &mut follower.task).await;
        task.expect("an end").unwrap();
        let written = std::fs::read_to_string(guest.dir.path().join("app.log"));
        assert_eq!(written.unwrap(), "first words, last words");
    }
}
