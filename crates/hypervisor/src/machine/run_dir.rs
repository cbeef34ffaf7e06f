//! The run directory of a machine: sockets in it are reached however long its path is.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use tokio::net::UnixStream;

use super::record::Record;
use super::ticks::Ticks;
use crate::VmmError;
use crate::process::RunMark;

/// Device state while it is being written; a VMM may have no right to the draft's directory.
pub(crate) const STATE_PART: &str = "state.part";

/// Between two tries to reach a socket that does not exist yet; a VMM makes it a millisecond after its start. Nothing
/// tells when it listens, and giving up a watch of the directory takes the kernel 15 ms; a try takes some 10 µs.
const RETRY: Duration = Duration::from_micros(200);

#[derive(Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
    inside: Inside,
}

/// Whether a socket may be reached in a moment: it is not there, nobody listens yet, or its backlog is full.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, NotFound, WouldBlock};
    matches!(error.kind(), NotFound | ConnectionRefused | WouldBlock)
}

/// Where the VMM's own files are.
#[derive(Debug)]
enum Inside {
    /// In the run directory.
    Directory(OwnedFd),
    /// In the root of this process, whose run directory has the record only. What is there belongs to the VMM, which
    /// may be hostile: no link of it is followed.
    RootOf(i32),
}

impl RunDir {
    pub(crate) fn open(path: &Path) -> Result<Self, VmmError> {
        let directory = rustix::fs::open(
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|error| VmmError::io("open", path)(error.into()))?;
        Ok(Self {
            path: path.to_path_buf(),
            inside: Inside::Directory(directory),
        })
    }

    /// The run directory of a VMM in a jail.
    pub(crate) fn of_jailed(path: &Path, pid: i32) -> Self {
        Self {
            path: path.to_path_buf(),
            inside: Inside::RootOf(pid),
        }
    }

    /// One of the VMM's own files, by a path of any length.
    fn inside(&self, name: &str) -> PathBuf {
        let directory = match &self.inside {
            Inside::Directory(directory) => format!("/proc/self/fd/{}", directory.as_raw_fd()),
            Inside::RootOf(pid) => format!("/proc/{pid}/root"),
        };
        PathBuf::from(directory).join(name)
    }

    /// Opens one of the VMM's own files for reading.
    pub(crate) fn read(&self, name: &str) -> io::Result<std::fs::File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(self.inside(name), flags, Mode::empty())?;
        let file = std::fs::File::from(file);
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Connects to a socket, trying again while it does not exist. The caller sets the deadline.
    pub(crate) async fn connect(&self, name: &str) -> Result<UnixStream, VmmError> {
        let failed = |error| VmmError::io("connect to", &self.path.join(name))(error);
        let mut ticks = None;
        loop {
            match self.try_connect(name).await {
                Ok(stream) => return Ok(stream),
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(failed(error)),
            }
            let ticks = match &mut ticks {
                Some(ticks) => ticks,
                None => ticks.insert(Ticks::every(RETRY).map_err(failed)?),
            };
            ticks.next().await.map_err(failed)?;
        }
    }

    /// Connects to a socket if somebody listens there at this moment.
    pub(crate) async fn connect_now(&self, name: &str) -> Result<Option<UnixStream>, VmmError> {
        match self.try_connect(name).await {
            Ok(stream) => Ok(Some(stream)),
            Err(error) if is_passing(&error) => Ok(None),
            Err(error) => Err(VmmError::io("connect to", &self.path.join(name))(error)),
        }
    }

    async fn try_connect(&self, name: &str) -> io::Result<UnixStream> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let socket = rustix::fs::open(self.inside(name), flags, Mode::empty())?;
        UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd())).await
    }

    /// Removes what a capture left whose daemon died: nobody will pick it up.
    pub(crate) fn drop_capture(path: &Path) {
        Self::remove(path, STATE_PART);
    }

    /// Removes what a machine that has ended left: what all drivers put there, and `names` of its own driver.
    pub(crate) fn clean(path: &Path, names: &[&str]) {
        let own = names.iter().copied();
        for name in own.chain([STATE_PART, RunMark::FILE, Record::FILE]) {
            Self::remove(path, name);
        }
    }

    /// Removes one file; that it is missing is no matter.
    pub(crate) fn remove(path: &Path, name: &str) {
        if let Err(error) = std::fs::remove_file(path.join(name))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, dir = %path.display(), name, "cannot remove what a machine left");
        }
    }
}
