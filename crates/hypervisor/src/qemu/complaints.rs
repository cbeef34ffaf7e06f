//! What a VMM said on standard error during this run.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Longest tail that is looked at; a restore prints a few lines at most.
const MAX_BYTES: u64 = 64 << 10;

/// Longest text that goes into an error message.
const MAX_QUOTE_BYTES: usize = 500;

/// Text of the log from `start` on; empty if it cannot be read.
pub(super) fn since(log: &Path, start: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let end = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(start.max(end.saturating_sub(MAX_BYTES))))?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read()
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

/// The line that says the loaded state does not fit the RAM, if there is one. QEMU loads on in that case, with a
/// device that never answers again.
pub(super) fn inconsistency(text: &str) -> Option<&str> {
    text.lines().find(|line| line.contains("inconsistent"))
}

/// The end of `text`, for an error message.
pub(super) fn quote(text: &str) -> String {
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

    #[test]
    fn finds_the_complaint() {
        let text = "a warning\nqemu: VQ 0 size 0x10 Guest index 0x1 inconsistent with Host index 0x4: delta\n";
        assert!(inconsistency(text).is_some_and(|line| line.starts_with("qemu: VQ 0")));
        assert_eq!(inconsistency("all is well"), None);
    }
}
