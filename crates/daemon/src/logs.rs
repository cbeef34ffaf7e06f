//! Reading a log file from its end on, and going on with what is appended.

use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::Stream;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

/// How often a followed file is looked at. People do not see a fifth of a second.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Bytes read at a time.
const BLOCK: usize = 64 << 10;
/// A line without end is cut here, so that no client needs more memory than this.
const MAX_LINE: usize = 256 << 10;

/// Size at which a log is rotated; one older part is kept. The writers append, so that
/// truncating under them is safe; what they write in between is lost to the copy at most.
pub(crate) const ROTATE_AT: u64 = 50 << 20;

/// Copies the end of a log that has grown large to `LOG.1` and empties it. A guest can write
/// without end, its owner's disk cannot grow without end: of what came between two looks no
/// more is kept than of what came slowly.
pub(crate) fn rotate_if_large(path: &Path) -> io::Result<()> {
    let length = match std::fs::metadata(path) {
        Ok(meta) if meta.len() >= ROTATE_AT => meta.len(),
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut older = path.as_os_str().to_owned();
    older.push(".1");
    let mut log = std::fs::File::open(path)?;
    io::Seek::seek(&mut log, SeekFrom::Start(length - ROTATE_AT))?;
    let mut end = io::Read::take(log, ROTATE_AT);
    io::copy(&mut end, &mut std::fs::File::create(older)?)?;
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)?
        .set_len(0)
}

/// Why a log cannot be read.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// There is no such file.
    Missing,
    /// The file system failed.
    Io(io::Error),
}

/// Lines of a log.
pub(crate) struct Lines {
    path: PathBuf,
    file: File,
    position: u64,
    partial: Vec<u8>,
    follow: bool,
}

impl Lines {
    /// Opens `path` at the beginning of its last `tail` lines.
    pub(crate) async fn open(path: &Path, tail: u32, follow: bool) -> Result<Self, OpenError> {
        let mut file = File::open(path).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => OpenError::Missing,
            _ => OpenError::Io(error),
        })?;
        let position = tail_position(&mut file, tail)
            .await
            .map_err(OpenError::Io)?;
        file.seek(SeekFrom::Start(position))
            .await
            .map_err(OpenError::Io)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            position,
            partial: Vec::new(),
            follow,
        })
    }

    /// The lines, without their ends. Without `follow` it ends with the file; with it,
    /// when the file is removed.
    pub(crate) fn into_stream(self) -> impl Stream<Item = String> {
        let queue = std::collections::VecDeque::new();
        futures::stream::unfold((self, queue), |(mut lines, mut queue)| async move {
            loop {
                if let Some(line) = queue.pop_front() {
                    return Some((line, (lines, queue)));
                }
                if !lines.fill(&mut queue).await {
                    return None;
                }
            }
        })
    }

    /// Reads until there is a line; false at the end.
    async fn fill(&mut self, queue: &mut std::collections::VecDeque<String>) -> bool {
        let mut block = vec![0; BLOCK];
        loop {
            let Ok(count) = self.file.read(&mut block).await else {
                return false;
            };
            if count == 0 {
                if !self.follow {
                    let rest = std::mem::take(&mut self.partial);
                    if rest.is_empty() {
                        return false;
                    }
                    queue.push_back(text(&rest));
                    return true;
                }
                if !self.wait_for_more().await {
                    return false;
                }
                continue;
            }
            self.position += count as u64;
            self.take(&block[..count], queue);
            if !queue.is_empty() {
                return true;
            }
        }
    }

    fn take(&mut self, bytes: &[u8], queue: &mut std::collections::VecDeque<String>) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.partial.len() >= MAX_LINE {
                let line = std::mem::take(&mut self.partial);
                queue.push_back(text(&line));
            }
        }
    }

    /// False once the file has gone. A file that got shorter was rotated: read it anew.
    async fn wait_for_more(&mut self) -> bool {
        tokio::time::sleep(LOOK_AGAIN).await;
        if !self.path.exists() {
            return false;
        }
        let Ok(meta) = self.file.metadata().await else {
            return false;
        };
        if meta.len() < self.position {
            self.position = 0;
            self.partial.clear();
            return self.file.seek(SeekFrom::Start(0)).await.is_ok();
        }
        true
    }
}

fn text(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8_lossy(line).into_owned()
}

/// Where the last `tail` lines begin. Reads backwards, so that the size of the file
/// does not matter.
async fn tail_position(file: &mut File, tail: u32) -> io::Result<u64> {
    let end = file.metadata().await?.len();
    let mut wanted = u64::from(tail);
    let mut start = end;
    if wanted == 0 {
        return Ok(end);
    }
    let mut block = vec![0; BLOCK];
    while start > 0 {
        let count = start.min(BLOCK as u64);
        start -= count;
        file.seek(SeekFrom::Start(start)).await?;
        let part = &mut block[..usize::try_from(count).unwrap_or(BLOCK)];
        file.read_exact(part).await?;
        for (index, byte) in part.iter().enumerate().rev() {
            let position = start + index as u64;
            // The newline that ends the file begins no line.
            if *byte == b'\n' && position + 1 < end {
                wanted -= 1;
                if wanted == 0 {
                    return Ok(position + 1);
                }
            }
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use futures::StreamExt as _;

    async fn tail_of(text: &str, tail: u32) -> Vec<String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let lines = Lines::open(file.path(), tail, false).await.unwrap();
        lines.into_stream().collect().await
    }

    #[tokio::test]
    async fn the_last_lines_are_found_whatever_the_end_looks_like() {
        assert_eq!(tail_of("a\nb\nc\n", 2).await, ["b", "c"]);
        assert_eq!(tail_of("a\nb\nc", 2).await, ["b", "c"]);
        assert_eq!(tail_of("a\nb\n", 9).await, ["a", "b"]);
        assert_eq!(tail_of("a\n\nb\r\n", 2).await, ["", "b"]);
        assert!(tail_of("a\n", 0).await.is_empty());
        assert!(tail_of("", 5).await.is_empty());
    }

    #[tokio::test]
    async fn long_files_and_long_lines_are_no_trouble() {
        let text: String = (0..50_000).map(|n| format!("line {n}\n")).collect();
        assert_eq!(tail_of(&text, 1).await, ["line 49999"]);
        let endless = "x".repeat(MAX_LINE * 2 + 10);
        let pieces = tail_of(&endless, 1).await;
        assert_eq!(pieces.concat(), endless);
        assert!(pieces.iter().all(|piece| piece.len() <= MAX_LINE + BLOCK));
    }

    /// A guest may have written gigabytes since the last look.
    #[test]
    fn a_rotated_log_keeps_its_end_and_no_more_than_its_share() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.log");
        let mut log = std::fs::File::create(&path).unwrap();
        log.set_len(3 * ROTATE_AT).unwrap();
        io::Seek::seek(&mut log, SeekFrom::End(0)).unwrap();
        log.write_all(b"the end").unwrap();
        rotate_if_large(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        let older = std::fs::read(dir.path().join("app.log.1")).unwrap();
        assert_eq!(older.len() as u64, ROTATE_AT);
        assert!(older.ends_with(b"the end"));
    }

    #[tokio::test]
    async fn a_followed_log_goes_on_after_appends_and_rotation() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "one").unwrap();
        let lines = Lines::open(file.path(), 10, true).await.unwrap();
        let mut stream = std::pin::pin!(lines.into_stream());
        assert_eq!(stream.next().await.as_deref(), Some("one"));
        writeln!(file, "two").unwrap();
        assert_eq!(stream.next().await.as_deref(), Some("two"));
        file.as_file().set_len(0).unwrap();
        let mut again = std::fs::OpenOptions::new()
            .append(true)
            .open(file.path())
            .unwrap();
        writeln!(again, "x").unwrap();
        assert_eq!(stream.next().await.as_deref(), Some("x"));
        file.close().unwrap();
        assert_eq!(stream.next().await, None);
    }
}
