//! Websockets frame by frame, as public clients speak them.

use futures::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::Daemon;
use crate::wait::patience;

/// A frame with content.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// Text, which is always JSON.
    Text(Value),
    /// Bytes.
    Binary(Vec<u8>),
    /// The other side has closed.
    Closed,
}

/// An open websocket.
#[derive(Debug)]
pub struct Socket(WebSocketStream<UnixStream>);

impl Daemon {
    /// Opens a websocket and sends the first frame.
    pub async fn open_socket(&self, path: &str, first: Value) -> Socket {
        let stream = UnixStream::connect(self.data().join("coppiced.sock"))
            .await
            .expect("the daemon listens");
        let url = format!("ws://localhost{path}");
        let (socket, _) = tokio_tungstenite::client_async(url, stream)
            .await
            .expect("the daemon opens a websocket");
        let mut socket = Socket(socket);
        socket.text(&first.to_string()).await;
        socket
    }
}

impl Socket {
    /// Sends text.
    pub async fn text(&mut self, text: &str) {
        self.send(Message::text(text)).await;
    }

    /// Sends bytes.
    pub async fn binary(&mut self, bytes: &[u8]) {
        self.send(Message::binary(bytes.to_vec())).await;
    }

    async fn send(&mut self, message: Message) {
        tokio::time::timeout(patience(), self.0.send(message))
            .await
            .expect("sent in time")
            .expect("sent");
    }

    /// The next frame with content.
    pub async fn next(&mut self) -> Frame {
        loop {
            let message = tokio::time::timeout(patience(), self.0.next())
                .await
                .expect("a frame in time");
            match message {
                Some(Ok(Message::Text(text))) => {
                    return Frame::Text(serde_json::from_str(&text).expect("JSON"));
                }
                Some(Ok(Message::Binary(bytes))) => return Frame::Binary(bytes.to_vec()),
                Some(Ok(Message::Close(_))) | None => return Frame::Closed,
                Some(Ok(_)) => {}
                Some(Err(error)) => panic!("the websocket broke: {error}"),
            }
        }
    }

    /// All bytes up to the next text frame, and that frame.
    pub async fn read_to_text(&mut self) -> (Vec<u8>, Value) {
        let mut bytes = Vec::new();
        loop {
            match self.next().await {
                Frame::Binary(more) => bytes.extend(more),
                Frame::Text(text) => return (bytes, text),
                Frame::Closed => panic!(
                    "closed without a last word after {:?}",
                    String::from_utf8_lossy(&bytes)
                ),
            }
        }
    }

    /// Bytes until they contain `wanted`; gives all of them.
    pub async fn read_until(&mut self, wanted: &str) -> String {
        let mut bytes = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if text.contains(wanted) {
                return text;
            }
            match self.next().await {
                Frame::Binary(more) => bytes.extend(more),
                other => panic!("{other:?} before {wanted:?}, after {text:?}"),
            }
        }
    }

    /// Leaves without a word.
    pub fn drop_connection(self) {
        drop(self.0);
    }
}
