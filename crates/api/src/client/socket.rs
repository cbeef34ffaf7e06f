//! Opening a websocket over the same HTTP client as everything else, so that
//! unix sockets, tokens and error bodies work alike.

use futures::{SinkExt, StreamExt};
use reqwest::Upgraded;
use reqwest::header::HeaderValue;
use serde::Serialize;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::{Client, ClientError};

/// Largest message taken from a server, as public clients have it.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

pub(super) type Socket = WebSocketStream<Upgraded>;

impl Client {
    /// Opens a websocket and sends the first frame.
    pub(super) async fn open_socket(
        &self,
        path: &[&str],
        first: &impl Serialize,
    ) -> Result<Socket, ClientError> {
        let key = generate_key();
        let key_header = HeaderValue::from_str(&key)
            .map_err(|_| ClientError::Protocol("the handshake key is malformed"))?;
        let response = self
            .get(path)
            .header("connection", HeaderValue::from_static("Upgrade"))
            .header("upgrade", HeaderValue::from_static("websocket"))
            .header("sec-websocket-version", HeaderValue::from_static("13"))
            .header("sec-websocket-key", key_header)
            .endless()
            .send()
            .await?;
        let accepted = response
            .headers()
            .get("sec-websocket-accept")
            .is_some_and(|accept| {
                accept.as_bytes() == derive_accept_key(key.as_bytes()).as_bytes()
            });
        if response.status().as_u16() != 101 || !accepted {
            return Err(ClientError::Protocol("it did not open a websocket"));
        }
        let stream = response.upgrade().await.map_err(|e| self.broken(e))?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES));
        let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await;
        socket.send(text(first)?).await?;
        Ok(socket)
    }
}

/// A text frame.
pub(super) fn text(frame: &impl Serialize) -> Result<Message, ClientError> {
    let text = serde_json::to_string(frame).map_err(ClientError::Decode)?;
    Ok(Message::text(text))
}

/// The next frame with content, or none when the other side has closed.
pub(super) async fn next_frame<S>(socket: &mut S) -> Result<Option<Message>, ClientError>
where
    S: futures::Stream<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin,
{
    while let Some(message) = socket.next().await {
        match message? {
            Message::Close(_) => return Ok(None),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            content @ (Message::Text(_) | Message::Binary(_)) => return Ok(Some(content)),
        }
    }
    Ok(None)
}
