//! What can go wrong between a client and its server.

use std::io::ErrorKind;
use std::time::Duration;

use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::error::ProtocolError;

use crate::error::ErrorBody;

/// Why a call gave no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address cannot be used.
    #[error("cannot use the address {address:?}: {reason}")]
    Address {
        /// As it was given.
        address: String,
        /// Why not.
        reason: &'static str,
    },
    /// The token has characters that a header cannot carry.
    #[error("the token is malformed")]
    Token,
    /// Nobody answers there.
    #[error("cannot reach the server at {address}")]
    Connect {
        /// Where.
        address: String,
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
    /// The server took the connection and did not answer in time.
    #[error("no answer from the server within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The connection broke.
    #[error("the connection to the server broke")]
    Transport(#[source] reqwest::Error),
    /// The server answered with an error.
    #[error("{}", body.message)]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it said; made from the status when it said nothing legible.
        body: Box<ErrorBody>,
    },
    /// A success whose content does not fit the contract.
    #[error("cannot read the server's answer")]
    Decode(#[source] serde_json::Error),
    /// A websocket that broke.
    #[error("the connection to the server broke")]
    Socket(#[source] Box<Error>),
    /// A websocket that the other side left without a farewell: whether the kernel tells this as an
    /// end or as a reset depends on what was under way, and means the same.
    #[error("the server closed the connection before the end")]
    Vanished,
    /// A frame or event that does not fit the contract.
    #[error("the server broke the protocol: {0}")]
    Protocol(&'static str),
    /// The session was ended by the other side with an error.
    #[error("{0}")]
    Ended(String),
    /// The data to be sent cannot be read.
    #[error("cannot read the data to send")]
    Input(#[source] std::io::Error),
}

impl ClientError {
    /// The code of the server's answer, if there was one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { body, .. } => Some(&body.code),
            _ => None,
        }
    }

    /// The HTTP status of the server's answer, if there was one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

impl From<Error> for ClientError {
    fn from(error: Error) -> Self {
        let vanished = match &error {
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => true,
            Error::Io(error) => matches!(
                error.kind(),
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof
            ),
            _ => false,
        };
        if vanished {
            Self::Vanished
        } else {
            Self::Socket(Box::new(error))
        }
    }
}
