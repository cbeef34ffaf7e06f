//! The access log: one line of JSON for each request, without queries, headers and bodies.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::metrics::Counter;

/// Lines wait this long at most before they are written, all at once.
const FLUSH: Duration = Duration::from_millis(100);
/// More bytes than this do not wait; lines that come then are lost, and counted.
const MOST_WAITING: usize = 4 << 20;
/// Rotated files that are kept.
const KEPT: u32 = 3;
/// Longest path in a line, in bytes.
const MAX_PATH: usize = 1024;

/// What is known of a request. Its line is written when it is dropped.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) log: AccessLog,
    pub(crate) line: Line,
    pub(crate) started: Instant,
    pub(crate) received: Option<Arc<AtomicU64>>,
}

/// A line of the log.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Line {
    pub(crate) time: String,
    pub(crate) client: String,
    pub(crate) scheme: &'static str,
    pub(crate) protocol: &'static str,
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: String,
    pub(crate) status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) instance: Option<String>,
    /// Until the answer's headers.
    pub(crate) answer_ms: f64,
    /// Until its last byte.
    pub(crate) total_ms: f64,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    /// Why the edge answered itself, or why a body ended early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
}

impl Record {
    pub(crate) fn new(log: &AccessLog, client: IpAddr) -> Self {
        Self {
            log: log.clone(),
            line: Line {
                client: client.to_string(),
                ..Line::default()
            },
            started: Instant::now(),
            received: None,
        }
    }

    pub(crate) fn set_path(&mut self, path: &str) {
        let mut end = path.len().min(MAX_PATH);
        while !path.is_char_boundary(end) {
            end -= 1;
        }
        path[..end].clone_into(&mut self.line.path);
    }

    pub(crate) fn answered(&mut self, status: u16) {
        self.line.status = status;
        self.line.answer_ms = ms(self.started.elapsed());
    }

    pub(crate) fn sent(&mut self, bytes: u64) {
        self.line.sent_bytes += bytes;
    }

    pub(crate) fn broke(&mut self, error: &impl Display) {
        self.line.problem = Some(error.to_string());
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let now = OffsetDateTime::now_utc();
        self.line.time = now.format(&Rfc3339).unwrap_or_default();
        self.line.total_ms = ms(self.started.elapsed());
        if let Some(received) = &self.received {
            self.line.received_bytes += received.load(Ordering::Relaxed);
        }
        self.log.write(&self.line);
    }
}

/// Milliseconds with three digits after the point.
fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// The log. Writing never waits: a thread of its own puts lines on the disk.
#[derive(Debug, Clone)]
pub(crate) struct AccessLog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    waiting: Mutex<Vec<u8>>,
    limit: AtomicU64,
    closing: AtomicBool,
    lost: Counter,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl AccessLog {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut file = Rotated::open(path)?;
        let log = Self(Arc::new(Inner {
            waiting: Mutex::default(),
            limit: AtomicU64::new(u64::MAX),
            closing: AtomicBool::new(false),
            lost: Counter::default(),
            writer: Mutex::default(),
        }));
        let inner = Arc::clone(&log.0);
        let writer = std::thread::Builder::new().name("access-log".to_owned());
        let writer = writer.spawn(move || {
            let mut batch = Vec::new();
            loop {
                let closing = inner.closing.load(Ordering::Acquire);
                std::mem::swap(&mut batch, &mut *inner.waiting());
                if !batch.is_empty() {
                    if let Err(error) = file.write(&batch, inner.limit.load(Ordering::Relaxed)) {
                        tracing::warn!(%error, "cannot write the access log");
                    }
                    batch.clear();
                }
                if closing {
                    return;
                }
                std::thread::park_timeout(FLUSH);
            }
        })?;
        *log.0.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer);
        Ok(log)
    }

    /// Rotates at this size, in bytes.
    pub(crate) fn set_limit(&self, bytes: u64) {
        self.0.limit.store(bytes, Ordering::Relaxed);
    }

    /// Lines that were lost.
    pub(crate) fn lost(&self) -> &Counter {
        &self.0.lost
    }

    /// Puts what waits on the disk and ends.
    pub(crate) async fn close(&self) {
        self.0.closing.store(true, Ordering::Release);
        let writer = self
            .0
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writer) = writer {
            writer.thread().unpark();
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
    }

    fn write(&self, line: &Line) {
        let mut waiting = self.0.waiting();
        if waiting.len() > MOST_WAITING {
            self.0.lost.one();
            return;
        }
        // Writing texts and numbers into memory does not fail.
        let _ = serde_json::to_writer(&mut *waiting, line);
        waiting.push(b'\n');
    }
}

impl Inner {
    /// What a panic leaves here is at worst half a line.
    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Rotated {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Rotated {
    fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).mode(0o600).open(path)?;
        Ok(Self {
            path: path.to_owned(),
            bytes: file.metadata()?.len(),
            file,
        })
    }

    fn write(&mut self, batch: &[u8], limit: u64) -> io::Result<()> {
        if self.bytes > 0 && self.bytes.saturating_add(batch.len() as u64) > limit {
            for number in (1..KEPT).rev() {
                // Those that do not exist yet cannot be moved.
                let _ = std::fs::rename(self.numbered(number), self.numbered(number + 1));
            }
            std::fs::rename(&self.path, self.numbered(1))?;
            *self = Self::open(&self.path)?;
        }
        self.file.write_all(batch)?;
        self.bytes += batch.len() as u64;
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        self.path.with_extension(format!("log.{number}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_files_move_aside_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let mut log = Rotated::open(&path).unwrap();
        for line in ["a\n", "b\n", "c\n", "d\n", "e\n"] {
            log.write(line.as_bytes(), 3).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).ok();
        assert_eq!(read("access.log").unwrap(), "e\n");
        assert_eq!(read("access.log.1").unwrap(), "d\n");
        assert_eq!(read("access.log.3").unwrap(), "b\n");
        assert_eq!(read("access.log.4"), None);
    }
}
