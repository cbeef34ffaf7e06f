//! A command in a guest, as two halves: what goes in, what comes out.

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

use super::socket::{Socket, next_frame, text};
use super::{Client, ClientError};
use crate::exec::{
    ExecExit, ExecRefusal, ExecResize, ExecStart, ExecStreams, MAX_CHUNK_BYTES, TerminalSize, tag,
};

impl Client {
    /// Begins a command. It is killed when both halves are dropped.
    pub async fn exec(
        &self,
        instance: &str,
        start: &ExecStart,
    ) -> Result<ExecSession, ClientError> {
        let socket = self
            .open_socket(&["instances", instance, "exec"], start)
            .await?;
        let (sink, stream) = socket.split();
        Ok(ExecSession {
            input: ExecInput {
                sink,
                streams: start.streams,
            },
            output: ExecOutput {
                stream,
                streams: start.streams,
            },
        })
    }
}

/// A command that was begun.
pub struct ExecSession {
    /// What goes in.
    pub input: ExecInput,
    /// What comes out.
    pub output: ExecOutput,
}

/// What goes into a command.
pub struct ExecInput {
    sink: SplitSink<Socket, Message>,
    streams: ExecStreams,
}

impl ExecInput {
    /// Bytes for its stdin.
    pub async fn write(&mut self, data: &[u8]) -> Result<(), ClientError> {
        for chunk in data.chunks(MAX_CHUNK_BYTES) {
            let frame = match self.streams {
                ExecStreams::Merged => Bytes::copy_from_slice(chunk),
                ExecStreams::Tagged => {
                    let mut frame = BytesMut::with_capacity(chunk.len() + 1);
                    frame.put_u8(tag::STDIN);
                    frame.put_slice(chunk);
                    frame.freeze()
                }
            };
            self.sink.send(Message::Binary(frame)).await?;
        }
        Ok(())
    }

    /// The end of its stdin, which merged streams cannot say.
    pub async fn end(&mut self) -> Result<(), ClientError> {
        match self.streams {
            ExecStreams::Merged => Ok(()),
            ExecStreams::Tagged => {
                let end = Bytes::from_static(&[tag::STDIN]);
                Ok(self.sink.send(Message::Binary(end)).await?)
            }
        }
    }

    /// The new size of its terminal.
    pub async fn resize(&mut self, size: TerminalSize) -> Result<(), ClientError> {
        let frame = text(&ExecResize { resize: size })?;
        Ok(self.sink.send(frame).await?)
    }
}

/// What comes out of a command.
pub struct ExecOutput {
    stream: SplitStream<Socket>,
    streams: ExecStreams,
}

/// Something that came out of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecEvent {
    /// Bytes of stdout; of both with merged streams or a terminal.
    Stdout(Bytes),
    /// Bytes of stderr.
    Stderr(Bytes),
    /// Its exit code; nothing comes after it.
    Exit(i32),
}

impl ExecOutput {
    /// What comes next. A session that ends without an exit code is an error.
    pub async fn next(&mut self) -> Result<ExecEvent, ClientError> {
        match next_frame(&mut self.stream).await? {
            Some(Message::Text(frame)) => read_text(frame.as_str()),
            Some(Message::Binary(data)) => read_binary(self.streams, data),
            Some(_) => Err(ClientError::Protocol("an unexpected frame")),
            None => Err(ClientError::Protocol("it ended without an exit code")),
        }
    }
}

fn read_text(frame: &str) -> Result<ExecEvent, ClientError> {
    if let Ok(refusal) = serde_json::from_str::<ExecRefusal>(frame) {
        return Err(ClientError::Ended(refusal.error));
    }
    let exit: ExecExit = serde_json::from_str(frame).map_err(ClientError::Decode)?;
    Ok(ExecEvent::Exit(exit.exit_code))
}

fn read_binary(streams: ExecStreams, mut data: Bytes) -> Result<ExecEvent, ClientError> {
    match streams {
        ExecStreams::Merged => Ok(ExecEvent::Stdout(data)),
        ExecStreams::Tagged => {
            let first = data.first().copied();
            let rest = data.split_off(data.len().min(1));
            match first {
                Some(tag::STDOUT) => Ok(ExecEvent::Stdout(rest)),
                Some(tag::STDERR) => Ok(ExecEvent::Stderr(rest)),
                Some(_) | None => Err(ClientError::Protocol("a frame of an unknown stream")),
            }
        }
    }
}
