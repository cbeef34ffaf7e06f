//! What the daemon asks of pagers, as traits: the edge at which tests put an honest fake. All calls block.

use std::io;
use std::path::{Path, PathBuf};

use crate::{Attach, Event, HotPages, Mark, NamedStats, PagerError, Supervisor};

/// Where what happens without being asked for is told. It is called in a thread of the pagers' side: it must not
/// wait, nor call back.
pub type EventSink = Box<dyn Fn(Event) + Send>;

/// Where the pagers of one image live. It outlives the daemon, and is of this image alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    root: PathBuf,
}

impl Place {
    /// The place at `root`.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Links of its own to the image: it can be served whatever becomes of the instances that have it.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.root.join("image")
    }

    /// Sockets of the pagers.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// What the pagers have to say.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.root.join("pager.log")
    }

    /// Names the program that the newest pager runs.
    #[must_use]
    pub fn build(&self) -> PathBuf {
        self.root.join("build")
    }
}

/// Starts pagers, and finds those that an earlier daemon has started.
pub trait PagerHost: Send + Sync {
    /// The pagers of the image in `place`: those that are there, with the machines they serve. If there are none,
    /// the first machine starts one.
    fn open(&self, place: &Place, on_event: EventSink) -> Result<Box<dyn ImagePager>, PagerError>;

    /// Why no machine can get its memory from a pager on this host; none if they can.
    fn unusable(&self) -> Option<String>;

    /// Whether all memory of a machine that no pager serves is there: its process waits for nobody.
    fn is_complete(&self, pid: i32) -> io::Result<bool>;

    /// Whether memory of this host is swapped out, so that pages of a loaded image may be missing.
    fn has_swapped(&self) -> io::Result<bool>;
}

/// The pagers of one image. What is dropped serves on, for a later daemon to find.
pub trait ImagePager: Send + Sync {
    /// Waits for a VMM's hand-over and has the machine served. On an error after that its process has been killed.
    fn attach(&self, attach: Attach<'_>) -> Result<(), PagerError>;

    /// Names of the machines that are served.
    fn vms(&self) -> Result<Vec<String>, PagerError>;

    /// Counters of all machines.
    fn stats(&self) -> Result<Vec<NamedStats>, PagerError>;

    /// Notes how far a guest is. Gives what was recorded when that ends the recording.
    fn mark(&self, vm: &str, mark: Mark) -> Result<Option<HotPages>, PagerError>;

    /// Has a machine completed in the background and let go.
    fn graduate(&self, vm: &str, bytes_per_second: u64) -> Result<(), PagerError>;
}

impl ImagePager for Supervisor {
    fn attach(&self, attach: Attach<'_>) -> Result<(), PagerError> {
        Self::attach(self, attach)
    }

    fn vms(&self) -> Result<Vec<String>, PagerError> {
        Self::vms(self)
    }

    fn stats(&self) -> Result<Vec<NamedStats>, PagerError> {
        Self::stats(self)
    }

    fn mark(&self, vm: &str, mark: Mark) -> Result<Option<HotPages>, PagerError> {
        Self::mark(self, vm, mark)
    }

    fn graduate(&self, vm: &str, bytes_per_second: u64) -> Result<(), PagerError> {
        Self::graduate(self, vm, bytes_per_second)
    }
}
