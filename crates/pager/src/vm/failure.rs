//! Why a machine is given up.

use std::io;

use memory::ImageError;

/// Why a machine must be killed. It never sees a byte that is in doubt.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{}", with_causes(.0))]
    Image(#[from] ImageError),
    #[error("a page of the memory image cannot be read from its file")]
    Unreadable,
    #[error("a fault at {0:#x}, outside of guest RAM")]
    Outside(u64),
    #[error("the VMM did what was not expected of it: {0}")]
    Unexpected(String),
    #[error("guest memory cannot be filled: {0}")]
    Memory(io::Error),
    #[error("guest memory could not be filled for {} s", super::STALL_LIMIT.as_secs())]
    Stalled,
}

/// An error with its sources in one line: a failure crosses a process boundary as text.
fn with_causes(error: &ImageError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
