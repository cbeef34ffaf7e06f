//! Upload and download sessions.

use bytes::Bytes;
use protocol::{EntryHeader, OutputKind, ToGuest, ToHost};

use crate::LinkError;
use crate::session::{SessionInput, SessionOutput};

/// An upload of one entry. Dropped before [`Upload::finish`] returned, it leaves nothing in the
/// guest.
#[derive(Debug)]
pub struct Upload {
    input: SessionInput,
    output: SessionOutput,
}

impl Upload {
    pub(crate) fn new(input: SessionInput, output: SessionOutput) -> Self {
        Upload { input, output }
    }

    /// Writes content; waits while the guest is busy. When cancelled, a prefix was written and the
    /// upload is spoilt.
    ///
    /// # Errors
    /// [`LinkError::Refused`] with the guest's reason.
    pub async fn write(&mut self, bytes: impl Into<Bytes>) -> Result<(), LinkError> {
        match self.input.write(bytes.into()).await {
            Err(LinkError::Ended) => Err(self.reason().await),
            other => other,
        }
    }

    /// Ends the content, waits until the entry is in its place and returns the bytes written.
    ///
    /// # Errors
    /// [`LinkError::Refused`] with the guest's reason; nothing was changed then, but for parents
    /// that were made.
    pub async fn finish(mut self) -> Result<u64, LinkError> {
        match self.input.send(|call| ToGuest::Eof { call }).await {
            Ok(()) => {}
            Err(LinkError::Ended) => return Err(self.reason().await),
            Err(error) => return Err(error),
        }
        match self.output.next().await? {
            ToHost::Uploaded { bytes_written, .. } => Ok(bytes_written),
            _ => Err(LinkError::Unexpected),
        }
    }

    /// Why the session ended before its time.
    async fn reason(&mut self) -> LinkError {
        self.output
            .next()
            .await
            .err()
            .unwrap_or(LinkError::Unexpected)
    }
}

/// A download of a file or a tree. Dropped before its end, it is cancelled.
#[derive(Debug)]
pub struct Download {
    // Held so that only dropping the whole download cancels it.
    _input: SessionInput,
    output: SessionOutput,
    ended: bool,
}

/// A piece of a download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DownloadItem {
    /// An entry begins.
    Entry(EntryHeader),
    /// Content of the entry.
    Data(Bytes),
    /// The entry is complete.
    End {
        /// No other entry follows.
        last: bool,
    },
}

impl Download {
    pub(crate) fn new(input: SessionInput, output: SessionOutput) -> Self {
        Download {
            _input: input,
            output,
            ended: false,
        }
    }

    /// The next piece; `None` after the last [`DownloadItem::End`]. Cancel safe.
    ///
    /// # Errors
    /// [`LinkError::Refused`] with the guest's reason, also in the middle of the download.
    pub async fn next(&mut self) -> Result<Option<DownloadItem>, LinkError> {
        if self.ended {
            return Ok(None);
        }
        match self.output.next().await? {
            ToHost::Entry { header, .. } => Ok(Some(DownloadItem::Entry(*header))),
            ToHost::Data {
                kind: OutputKind::File,
                bytes,
                ..
            } => Ok(Some(DownloadItem::Data(bytes.into()))),
            ToHost::EntryEnd { last, .. } => {
                self.ended = last;
                Ok(Some(DownloadItem::End { last }))
            }
            _ => Err(LinkError::Unexpected),
        }
    }
}
