//! Messages on a stream: four bytes of length, big-endian, then JSON.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Longest message, in bytes: ten thousand instances and as many rules fit several times over.
const MAX_BYTES: usize = 64 << 20;

/// Writes one message.
pub(super) async fn write<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len())
        .ok()
        .filter(|length| *length as usize <= MAX_BYTES)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"))?;
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&body);
    stream.write_all(&frame).await?;
    stream.flush().await
}

/// Reads one message; `None` at the end of the stream.
pub(super) async fn read<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the message is too long",
        ));
    }
    let mut body = Vec::new();
    // Grows with what arrives, not with what was announced.
    stream.take(length as u64).read_to_end(&mut body).await?;
    if body.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(serde_json::from_slice(&body)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_arrives_and_half_a_message_is_an_error() {
        let mut frame = Vec::new();
        write(&mut frame, &vec!["a", "b"]).await.unwrap();
        let whole: Option<Vec<String>> = read(&mut frame.as_slice()).await.unwrap();
        assert_eq!(whole.unwrap(), ["a", "b"]);
        let cut = &frame[..frame.len() - 1];
        assert!(read::<Vec<String>>(&mut &*cut).await.is_err());
        assert!(
            read::<Vec<String>>(&mut [].as_slice())
                .await
                .unwrap()
                .is_none()
        );
        assert!(
            read::<Vec<String>>(&mut [0xff; 8].as_slice())
                .await
                .is_err()
        );
    }
}
