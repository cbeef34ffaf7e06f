//! The operations log of one instance: one JSON object a line, for its owner to read
//! through `logs?source=coppice`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::layout::{InstanceDir, LogSource};

/// Writes the log. A log that cannot be written never stops an operation.
pub(super) struct Journal {
    path: PathBuf,
}

impl Journal {
    pub(super) fn new(dir: &InstanceDir) -> Self {
        Self {
            path: dir.log(LogSource::Operations),
        }
    }

    /// An operation that succeeded.
    pub(super) fn done(&self, operation: &str, took: Duration) {
        self.write(&serde_json::json!({
            "time_ms": now_ms(), "operation": operation, "ok": true, "ms": millis(took),
        }));
    }

    /// An operation that failed.
    pub(super) fn failed(&self, operation: &str, took: Duration, why: &str) {
        self.write(&serde_json::json!({
            "time_ms": now_ms(), "operation": operation, "ok": false, "ms": millis(took), "error": why,
        }));
    }

    /// Something that happened without having been asked for.
    pub(super) fn note(&self, what: &str) {
        self.write(&serde_json::json!({ "time_ms": now_ms(), "event": what }));
    }

    fn write(&self, line: &serde_json::Value) {
        let mut text = line.to_string();
        text.push('\n');
        // The directory is gone after a deletion; there is nobody left to tell.
        if let Ok(mut file) = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.path)
        {
            let _ = file.write_all(text.as_bytes());
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, millis)
}
