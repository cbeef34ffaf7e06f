//! Framing: `COBS(postcard(message) ‖ CRC32) ‖ 0x00`.
//!
//! COBS removes every zero byte from the frame, so a zero always is a delimiter and a reader that
//! joins in the middle is in step again at the next one. The checksum tells a whole frame from the
//! two ends of two halves.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::limits::{CHECKSUM, MAX_FRAME, MAX_MESSAGE};

/// Ends a frame. Sent alone it ends whatever half frame the other side may hold.
const DELIMITER: u8 = 0;

/// Buffer a [`Decoder`] keeps between frames; larger ones are given back after the frame that
/// needed them.
const KEEP_CAPACITY: usize = 64 * 1024;

/// A message that cannot be put into a frame.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// Longer than [`MAX_MESSAGE`].
    #[error("message of {len} bytes, at most {MAX_MESSAGE} allowed")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The serialiser failed.
    #[error("message cannot be serialised")]
    Serialise(#[source] postcard::Error),
}

/// Bytes between two delimiters that are no message. The decoder goes on with the next frame.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Longer than [`MAX_FRAME`]; skipped.
    #[error("frame longer than {MAX_FRAME} bytes")]
    TooLong,
    /// Not COBS, or too short for a checksum.
    #[error("frame is damaged")]
    Damaged,
    /// The checksum does not match.
    #[error("frame has a wrong checksum")]
    Checksum,
    /// The checksum matches but the content is no known message.
    #[error("frame holds no known message")]
    Unknown {
        /// The nonce, where the content begins as an answer to a Hello does.
        answers: Option<u64>,
    },
}

/// Appends `message` as one frame to `out`. On an error `out` is as it was.
///
/// # Errors
/// [`EncodeError`] when the message is too long.
pub fn encode<T: Serialize>(message: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let mut payload = postcard::to_allocvec(message).map_err(EncodeError::Serialise)?;
    if payload.len() > MAX_MESSAGE {
        return Err(EncodeError::TooLong { len: payload.len() });
    }
    payload.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
    let start = out.len();
    out.resize(start + cobs::max_encoding_length(payload.len()), 0);
    let used = cobs::encode(&payload, &mut out[start..]);
    out.truncate(start + used);
    out.push(DELIMITER);
    Ok(())
}

/// Finds messages of type `T` in a byte stream. Holds at most one unfinished frame.
#[derive(Debug)]
pub struct Decoder<T> {
    frame: Vec<u8>,
    skipping: bool,
    message: PhantomData<fn() -> T>,
}

impl<T> Default for Decoder<T> {
    fn default() -> Self {
        Decoder {
            frame: Vec::new(),
            skipping: false,
            message: PhantomData,
        }
    }
}

impl<T: DeserializeOwned> Decoder<T> {
    /// Takes bytes from the front of `input` up to the end of the next frame and returns what the
    /// frame was. `None` means that `input` is used up. Call again until then.
    pub fn decode(&mut self, input: &mut &[u8]) -> Option<Result<T, FrameError>> {
        while !input.is_empty() {
            let Some(end) = input.iter().position(|byte| *byte == DELIMITER) else {
                self.take(input);
                *input = &[];
                return None;
            };
            self.take(&input[..end]);
            *input = &input[end + 1..];
            if std::mem::take(&mut self.skipping) {
                self.reset();
                return Some(Err(FrameError::TooLong));
            }
            if !self.frame.is_empty() {
                let result = read_frame(&mut self.frame);
                self.reset();
                return Some(result);
            }
        }
        None
    }

    /// Forgets a half-received frame.
    pub fn reset(&mut self) {
        self.skipping = false;
        self.frame.clear();
        self.frame.shrink_to(KEEP_CAPACITY);
    }

    fn take(&mut self, bytes: &[u8]) {
        if self.skipping || self.frame.len() + bytes.len() > MAX_FRAME {
            self.skipping = true;
            self.frame.clear();
        } else {
            self.frame.extend_from_slice(bytes);
        }
    }
}

fn read_frame<T: DeserializeOwned>(frame: &mut [u8]) -> Result<T, FrameError> {
    let len = cobs::decode_in_place(frame).map_err(|_| FrameError::Damaged)?;
    let content = frame.get(..len).ok_or(FrameError::Damaged)?;
    let (payload, checksum) = content
        .split_last_chunk::<CHECKSUM>()
        .ok_or(FrameError::Damaged)?;
    if crc32fast::hash(payload) != u32::from_le_bytes(*checksum) {
        return Err(FrameError::Checksum);
    }
    match postcard::take_from_bytes(payload) {
        Ok((message, [])) => Ok(message),
        Ok(_) | Err(_) => Err(FrameError::Unknown {
            answers: nonce_answered(payload),
        }),
    }
}

/// The nonce of a `HelloAck` or `HelloRefused`, whatever follows it: these two keep their places,
/// and the nonce comes first.
fn nonce_answered(payload: &[u8]) -> Option<u64> {
    match postcard::take_from_bytes::<(u32, u64)>(payload) {
        Ok(((0 | 1, nonce), _)) => Some(nonce),
        Ok(_) | Err(_) => None,
    }
}
