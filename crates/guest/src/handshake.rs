//! The first words of a connection.

use protocol::{
    Decoder, FrameError, Hello, HelloAck, ToGuest, ToHost, VERSION_MAX, VERSION_MIN, encode,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::LinkError;
use crate::driver::READ_BUFFER;

/// A connection that stands.
pub(crate) struct Greeted<S> {
    pub(crate) stream: S,
    pub(crate) decoder: Decoder<ToHost>,
    /// What was read behind the answer and not looked at yet.
    pub(crate) rest: Vec<u8>,
    pub(crate) ack: HelloAck,
}

/// Sends a delimiter and a `Hello` in one write, then drops everything up to the answer to this
/// `Hello`.
pub(crate) async fn greet<S>(mut stream: S) -> Result<Greeted<S>, LinkError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let nonce = nonce()?;
    let hello = Hello {
        nonce,
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
    };
    let mut out = vec![0];
    encode(&ToGuest::Hello(hello), &mut out)?;
    stream.write_all(&out).await?;
    stream.flush().await?;

    let mut decoder = Decoder::default();
    let mut buffer = vec![0; READ_BUFFER];
    loop {
        let len = stream.read(&mut buffer).await?;
        if len == 0 {
            return Err(LinkError::Closed);
        }
        let mut input = &buffer[..len];
        while let Some(frame) = decoder.decode(&mut input) {
            match frame {
                Ok(ToHost::HelloAck(ack)) if ack.nonce == nonce => {
                    if !(VERSION_MIN..=VERSION_MAX).contains(&ack.version) {
                        return Err(LinkError::Version {
                            min: ack.version,
                            max: ack.version,
                        });
                    }
                    let rest = input.to_vec();
                    return Ok(Greeted {
                        stream,
                        decoder,
                        rest,
                        ack,
                    });
                }
                Ok(ToHost::HelloRefused {
                    nonce: answered,
                    version_min,
                    version_max,
                }) if answered == nonce => {
                    return Err(LinkError::Version {
                        min: version_min,
                        max: version_max,
                    });
                }
                Err(FrameError::Unknown {
                    answers: Some(answered),
                }) if answered == nonce => return Err(LinkError::Stranger),
                // The end of what the agent had to say to the connection before, cut anywhere.
                Ok(_) | Err(_) => {}
            }
        }
    }
}

/// A number no earlier connection has used.
pub(crate) fn nonce() -> Result<u64, LinkError> {
    getrandom::u64().map_err(|error| LinkError::Io(error.into()))
}
