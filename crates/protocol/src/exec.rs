//! Commands run in a guest.

use serde::{Deserialize, Serialize};

/// A command to run in a guest beside its program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// Program and arguments; the program is looked up in `PATH`. Empty runs `/bin/sh`.
    pub argv: Vec<String>,
    /// Added to, and stronger than, the environment of the machine's program.
    pub env: Vec<(String, String)>,
    /// Working directory; `None` is that of the machine's program.
    pub cwd: Option<String>,
    /// `user[:group]`, names or numbers; `None` is the user of the machine's program.
    pub user: Option<String>,
    /// Run on a terminal of this size; standard output and standard error are then one stream.
    pub tty: Option<TerminalSize>,
    /// Kill the command's process group after this time.
    pub timeout_ms: Option<u64>,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

impl Default for TerminalSize {
    /// The 24 × 80 of the classic terminal, which the exec interface promises when a client names
    /// no size.
    fn default() -> Self {
        TerminalSize { rows: 24, cols: 80 }
    }
}

/// Where bytes sent to the host come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputKind {
    /// A command's standard output, or its terminal.
    Stdout,
    /// A command's standard error.
    Stderr,
    /// The content of a downloaded file.
    File,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// The status of a command that exited, 128 + signal of one that was killed, 124 of one that
    /// ran out of time, 127 of one that was not found, 126 of one that could not be run.
    pub code: i32,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// It was killed because its time was over.
    pub timed_out: bool,
}

impl ExitStatus {
    /// Code of a command that ran out of time.
    pub const TIMED_OUT: i32 = 124;
    /// Code of a command that exists but cannot be run.
    pub const NOT_EXECUTABLE: i32 = 126;
    /// Code of a command that does not exist.
    pub const NOT_FOUND: i32 = 127;

    /// A command that exited by itself.
    pub fn exited(code: i32) -> Self {
        ExitStatus {
            code,
            signal: None,
            timed_out: false,
        }
    }

    /// A command killed by `signal`.
    pub fn killed(signal: i32) -> Self {
        ExitStatus {
            code: 128 + signal,
            signal: Some(signal),
            timed_out: false,
        }
    }

    /// The same end, reported as caused by the command's time limit.
    pub fn timed_out(self) -> Self {
        ExitStatus {
            code: Self::TIMED_OUT,
            signal: self.signal,
            timed_out: true,
        }
    }
}
