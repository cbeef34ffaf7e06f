//! Copying between this machine and a guest: frames only. What they mean for
//! files is the caller's business.

use bytes::Bytes;
use futures::stream::SplitSink;
use futures::{SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_tungstenite::tungstenite::Message;

use super::socket::{Socket, next_frame, text};
use super::{Client, ClientError};
use crate::cp::{
    CpClientFrame, CpDirection, CpHeader, CpResult, CpServerFrame, CpStart, MAX_CHUNK_BYTES,
};

/// One entry for a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Where it goes.
    pub guest_path: String,
    /// Permission bits; 0 for the server's default.
    pub mode: u32,
    /// Owner and group, kept only when neither is 0.
    pub owner: Option<(u32, u32)>,
}

impl Upload {
    fn start(&self, is_dir: bool) -> CpStart {
        CpStart {
            direction: CpDirection::To,
            guest_path: self.guest_path.clone(),
            is_dir: Some(is_dir),
            mode: Some(self.mode),
            uid: self.owner.map(|(uid, _)| uid),
            gid: self.owner.map(|(_, gid)| gid),
            follow_links: None,
            src_basename: None,
        }
    }
}

impl Client {
    /// Writes a file into a guest and gives the bytes written; `progress` hears
    /// of each piece.
    pub async fn upload_file(
        &self,
        instance: &str,
        upload: &Upload,
        mut content: impl AsyncRead + Unpin,
        mut progress: impl FnMut(u64),
    ) -> Result<u64, ClientError> {
        let path = ["instances", instance, "cp"];
        let socket = self.open_socket(&path, &upload.start(false)).await?;
        let (mut sink, stream) = socket.split();
        // A refusal comes while there is still data to send, and is lost with
        // the connection unless it is read at once.
        let answer = answer(stream);
        tokio::pin!(answer);
        let sent = tokio::select! {
            early = &mut answer => {
                early?;
                return Err(ClientError::Protocol("it did not wait for the end"));
            }
            sent = send_file(&mut sink, &mut content, &mut progress) => sent,
        };
        let sent = match sent {
            Ok(sent) => sent,
            Err(error @ ClientError::Input(_)) => return Err(error),
            // The server says why before it hangs up.
            Err(error) => return Err(answer.await.err().unwrap_or(error)),
        };
        let written = answer.await?.bytes_written;
        if written == sent {
            Ok(written)
        } else {
            Err(ClientError::Protocol("it wrote another number of bytes"))
        }
    }

    /// Makes a directory in a guest.
    pub async fn upload_directory(
        &self,
        instance: &str,
        upload: &Upload,
    ) -> Result<(), ClientError> {
        let path = ["instances", instance, "cp"];
        let mut socket = self.open_socket(&path, &upload.start(true)).await?;
        socket.send(text(&CpClientFrame::End)?).await?;
        answer(socket).await.map(drop)
    }

    /// Reads a file or a tree out of a guest.
    pub async fn download(
        &self,
        instance: &str,
        guest_path: &str,
        follow_links: bool,
    ) -> Result<Download, ClientError> {
        let start = CpStart {
            direction: CpDirection::From,
            guest_path: guest_path.to_owned(),
            is_dir: None,
            mode: None,
            uid: None,
            gid: None,
            follow_links: Some(follow_links),
            src_basename: None,
        };
        let socket = self
            .open_socket(&["instances", instance, "cp"], &start)
            .await?;
        Ok(Download {
            socket,
            place: Place::Between,
        })
    }
}

async fn send_file(
    sink: &mut SplitSink<Socket, Message>,
    content: &mut (impl AsyncRead + Unpin),
    progress: &mut impl FnMut(u64),
) -> Result<u64, ClientError> {
    let mut buffer = vec![0; MAX_CHUNK_BYTES];
    let mut sent = 0;
    loop {
        let count = content
            .read(&mut buffer)
            .await
            .map_err(ClientError::Input)?;
        if count == 0 {
            sink.send(text(&CpClientFrame::End)?).await?;
            return Ok(sent);
        }
        let chunk = Message::Binary(Bytes::copy_from_slice(&buffer[..count]));
        sink.send(chunk).await?;
        sent += count as u64;
        progress(count as u64);
    }
}

/// What became of an upload.
async fn answer<S>(mut frames: S) -> Result<CpResult, ClientError>
where
    S: Stream<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin,
{
    match next_frame(&mut frames).await? {
        Some(Message::Text(frame)) => match read_text(frame.as_str())? {
            CpServerFrame::Result(result) if result.success => Ok(result),
            CpServerFrame::Result(result) => Err(ClientError::Ended(
                result.error.unwrap_or_else(|| "the copy failed".to_owned()),
            )),
            CpServerFrame::Header(_) | CpServerFrame::End(_) | CpServerFrame::Stat(_) => {
                Err(ClientError::Protocol("an unexpected frame"))
            }
            CpServerFrame::Error(error) => Err(ended(error)),
        },
        Some(_) => Err(ClientError::Protocol("an unexpected frame")),
        None => Err(ClientError::Protocol("it ended without a result")),
    }
}

/// A tree on its way out of a guest, parents before children.
pub struct Download {
    socket: Socket,
    place: Place,
}

/// Where in the sequence of frames a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Between,
    Within { left: u64 },
    Done,
}

/// What comes next in a download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DownloadEvent {
    /// An entry begins.
    Entry(CpHeader),
    /// Some of its data.
    Data(Bytes),
    /// The entry is complete.
    EntryEnd,
}

impl Download {
    /// What comes next, or none after the last entry. Each entry is seen to be
    /// as long as it was announced.
    pub async fn next(&mut self) -> Result<Option<DownloadEvent>, ClientError> {
        if self.place == Place::Done {
            return Ok(None);
        }
        let event = match next_frame(&mut self.socket).await? {
            Some(Message::Text(frame)) => {
                let (place, event) = self.place.step(read_text(frame.as_str())?)?;
                self.place = place;
                event
            }
            Some(Message::Binary(data)) => {
                self.place = self.place.data(data.len() as u64)?;
                DownloadEvent::Data(data)
            }
            Some(_) => return Err(ClientError::Protocol("an unexpected frame")),
            None => return Err(ClientError::Protocol("it ended before the last entry")),
        };
        Ok(Some(event))
    }
}

impl Place {
    fn data(self, count: u64) -> Result<Self, ClientError> {
        match self {
            Self::Within { left } => left
                .checked_sub(count)
                .map(|left| Self::Within { left })
                .ok_or(ClientError::Protocol("an entry is longer than announced")),
            Self::Between | Self::Done => Err(ClientError::Protocol("data outside of an entry")),
        }
    }

    fn step(self, frame: CpServerFrame) -> Result<(Self, DownloadEvent), ClientError> {
        match (self, frame) {
            (Self::Between, CpServerFrame::Header(header)) => {
                let plain = !header.is_dir && !header.is_symlink;
                let left = if plain { header.size } else { 0 };
                Ok((Self::Within { left }, DownloadEvent::Entry(header)))
            }
            (Self::Within { left: 0 }, CpServerFrame::End(end)) => {
                let place = if end.last { Self::Done } else { Self::Between };
                Ok((place, DownloadEvent::EntryEnd))
            }
            (Self::Within { .. }, CpServerFrame::End(_)) => {
                Err(ClientError::Protocol("an entry is shorter than announced"))
            }
            (_, CpServerFrame::Error(error)) => Err(ended(error)),
            (_, _) => Err(ClientError::Protocol("an unexpected frame")),
        }
    }
}

fn read_text(frame: &str) -> Result<CpServerFrame, ClientError> {
    serde_json::from_str(frame).map_err(ClientError::Decode)
}

fn ended(error: crate::cp::CpError) -> ClientError {
    ClientError::Ended(match error.path {
        Some(path) => format!("{path}: {}", error.message),
        None => error.message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cp::CpEnd;

    fn header(size: u64, is_dir: bool) -> CpServerFrame {
        CpServerFrame::Header(CpHeader {
            path: "a".to_owned(),
            size,
            is_dir,
            ..CpHeader::default()
        })
    }

    #[test]
    fn an_entry_has_the_announced_length() {
        let (within, _) = Place::Between.step(header(5, false)).expect("a header");
        let within = within.data(3).expect("3 of 5");
        within.data(3).expect_err("6 of 5");
        within
            .step(CpServerFrame::End(CpEnd { last: false }))
            .expect_err("3 of 5 only");
        let full = within.data(2).expect("5 of 5");
        let (place, event) = full
            .step(CpServerFrame::End(CpEnd { last: true }))
            .expect("all there");
        assert_eq!((place, event), (Place::Done, DownloadEvent::EntryEnd));
    }

    #[test]
    fn directories_have_no_data_whatever_their_size() {
        let (within, _) = Place::Between.step(header(4096, true)).expect("a header");
        assert_eq!(within, Place::Within { left: 0 });
        within.data(1).expect_err("data of a directory");
    }

    #[test]
    fn frames_out_of_turn_are_refused() {
        Place::Between.data(0).expect_err("data before a header");
        Place::Within { left: 0 }
            .step(header(0, false))
            .expect_err("a header within an entry");
    }
}
