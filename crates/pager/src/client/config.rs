//! How a supervisor works.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::process::Settings;

/// What a supervisor needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Program that is a pager when started with `arguments` and one more.
    pub program: PathBuf,
    /// Its first arguments, the word that asks for the role for example.
    pub arguments: Vec<OsString>,
    /// Directory of the memory image.
    pub image_dir: PathBuf,
    /// Directory for the pagers' sockets, of this image alone. Another daemon finds them there.
    pub run_dir: PathBuf,
    /// What pagers have to say is appended to this file.
    pub log: PathBuf,
    /// User and group that pagers become; needs root. Absent: the daemon's own.
    pub uid: Option<u32>,
    /// How pages are served.
    pub settings: Settings,
    /// How long things may take.
    pub limits: Limits,
}

/// Limits of waiting and trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From starting a pager to its first answer; the indexes of the image are read meanwhile. Milliseconds, but a host
    /// that starts many machines at once has no processor for it at first.
    pub start: Duration,
    /// For one request.
    pub answer: Duration,
    /// Between two questions whether a pager is alive.
    pub ping_every: Duration,
    /// A pager that does not answer for this long is replaced.
    pub silence: Duration,
    /// From when the loss of a pager is noticed until another one serves its machines: no step of that is begun later,
    /// and what has none by then is killed. Where a process starts at once it takes milliseconds.
    pub takeover: Duration,
    /// Replacements within `restart_window`; after that, its machines are killed.
    pub restarts: u32,
    /// See `restarts`.
    pub restart_window: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(20),
            answer: Duration::from_secs(2),
            ping_every: Duration::from_millis(500),
            silence: Duration::from_secs(2),
            takeover: Duration::from_secs(1),
            restarts: 8,
            restart_window: Duration::from_secs(10),
        }
    }
}
