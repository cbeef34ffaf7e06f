//! Where results and remarks go: data to stdout for people or programs,
//! everything else to stderr.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::progress::Progress;

/// Who reads stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    People,
    Json,
}

/// Decides what is shown and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    format: Format,
    stderr_is_terminal: bool,
}

impl Printer {
    pub(crate) fn new(format: Format) -> Self {
        Self {
            format,
            stderr_is_terminal: io::stderr().is_terminal(),
        }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// A result: as it came over the wire, or in words, if there are any.
    pub(crate) fn show<T: Serialize>(
        &self,
        value: &T,
        words: impl FnOnce(&T) -> String,
    ) -> io::Result<()> {
        match self.format {
            Format::People => match words(value).as_str() {
                "" => Ok(()),
                text => self.line(text),
            },
            Format::Json => {
                let mut out = io::stdout().lock();
                serde_json::to_writer_pretty(&mut out, value)?;
                out.write_all(b"\n")
            }
        }
    }

    /// A line of data as it is.
    pub(crate) fn line(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")?;
        out.flush()
    }

    /// A remark for people, not part of the result.
    pub(crate) fn remark(&self, text: &str) {
        eprintln!("{text}");
    }

    /// A sign of life while something of unknown length goes on.
    pub(crate) fn spinner(&self, text: impl Into<String>) -> Progress {
        if self.stderr_is_terminal {
            Progress::spinner(text.into())
        } else {
            Progress::hidden()
        }
    }

    /// A bar for a known number of bytes; without one, a running count.
    pub(crate) fn bytes_bar(&self, text: impl Into<String>, total: Option<u64>) -> Progress {
        if self.stderr_is_terminal {
            Progress::bytes(text.into(), total)
        } else {
            Progress::hidden()
        }
    }
}
