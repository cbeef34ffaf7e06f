//! What a VMM said in its log during this run.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Longest tail that is looked at; a start prints a few lines at most.
const MAX_BYTES: u64 = 64 << 10;

/// Longest text that goes into an error message.
const MAX_QUOTE_BYTES: usize = 500;

/// Text of the log from `start` on; empty if it cannot be read.
pub(crate) fn since(log: &Path, start: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let end = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(start.max(end.saturating_sub(MAX_BYTES))))?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    // A log that was trimmed has a hole before what was said since.
    let said = |bytes: Vec<u8>| {
        let hole = bytes.iter().take_while(|byte| **byte == 0).count();
        String::from_utf8_lossy(&bytes[hole..]).into_owned()
    };
    read().map(said).unwrap_or_default()
}

/// The end of `text`, for an error message.
pub(crate) fn quote(text: &str) -> String {
    let text = text.trim();
    let mut start = text.len().saturating_sub(MAX_QUOTE_BYTES);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].replace('\n', "; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_only_this_run() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("vmm.log");
        std::fs::write(&log, "old: inconsistent\nnew line\n").unwrap();
        assert_eq!(since(&log, 18), "new line\n");
        assert_eq!(since(&dir.path().join("none"), 0), "");
    }
}
