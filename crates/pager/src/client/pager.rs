//! One pager process, started or found again.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::attach::is_ready;
use super::link::Link;
use super::{Config, PagerError};
use crate::control::{Hello, PROTOCOL, PagerEvent, Reply, Request};
use crate::process::Spec;

/// Beginning and end of the names of sockets in the run directory; between them a number.
const SOCKET_PREFIX: &str = "pager-";
const SOCKET_SUFFIX: &str = ".sock";

/// A process with an end of its own: either it answers, or it is killed.
pub(super) struct Pager {
    pub(super) link: Link,
    process: OwnedFd,
    child: Option<Child>,
    socket: PathBuf,
    pub(super) pid: i32,
    pub(super) draining: bool,
}

impl Pager {
    /// Starts a pager, with `number` in the name of its socket, and waits until it has opened the image, up to `limit`.
    pub(super) fn start(
        config: &Config,
        number: u32,
        limit: Duration,
        report: impl Fn(Option<PagerEvent>) + Send + 'static,
    ) -> Result<Self, PagerError> {
        let socket = config
            .run_dir
            .join(format!("{SOCKET_PREFIX}{number}{SOCKET_SUFFIX}"));
        let listener =
            bind(&socket, config.uid).map_err(PagerError::io("make the socket of a pager"))?;
        let spec = Spec {
            image_dir: config.image_dir.clone(),
            settings: config.settings,
            uid: config.uid,
            owner_uid: rustix::process::geteuid().as_raw(),
        };
        let argument = serde_json::to_string(&spec)
            .map_err(|error| PagerError::io("describe a pager")(error.into()))?;
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&config.log)
            .map_err(PagerError::io("open the log of a pager"))?;
        let mut child = Command::new(&config.program)
            .args(&config.arguments)
            .arg(argument)
            // What the daemon is told by its environment is not for pagers.
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(PagerError::io("start a pager"))?;
        // Process numbers fit: the kernel's limit is 2^22.
        let process = pidfd(child.id() as i32).map_err(PagerError::io("watch a pager"))?;
        let connected = connect(&socket, limit, report);
        let (link, hello) = connected.inspect_err(|_| {
            // It did not get as far as being a pager; why is in the log.
            if end(&process, config.limits.answer).is_ok() {
                let _ = child.wait();
            }
        })?;
        Ok(Self {
            link,
            process,
            child: Some(child),
            socket,
            pid: hello.pid,
            draining: false,
        })
    }

    /// Connects to a pager that an earlier daemon has started. `None` if nobody answers there any more.
    pub(super) fn find(
        config: &Config,
        socket: &Path,
        report: impl Fn(Option<PagerEvent>) + Send + 'static,
    ) -> Result<Option<(Self, Hello)>, PagerError> {
        let (link, hello) = match connect(socket, config.limits.start, report) {
            Err(PagerError::Lost { .. }) => {
                let _ = std::fs::remove_file(socket);
                return Ok(None);
            }
            connected => connected?,
        };
        let process = pidfd(hello.pid).map_err(PagerError::io("watch a pager"))?;
        // It said its number itself, and what is killed by it must be a pager, which runs as the user that it was
        // started as, whatever a pager of today would be.
        let own = rustix::process::geteuid().as_raw();
        let started_as = std::fs::metadata(socket).map(|socket| socket.uid());
        let uid = uid_of(hello.pid).map_err(PagerError::io("identify a pager"))?;
        let is_pager = uid == config.uid.unwrap_or(own) || started_as.is_ok_and(|user| user == uid);
        if !is_pager || hello.pid == std::process::id() as i32 {
            return Err(PagerError::lost("it claims to be another process"));
        }
        let pager = Self {
            link,
            process,
            child: None,
            socket: socket.to_path_buf(),
            pid: hello.pid,
            draining: hello.draining,
        };
        Ok(Some((pager, hello)))
    }

    /// Sockets of pagers in the run directory, with their numbers.
    pub(super) fn sockets(run_dir: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
        let mut sockets = Vec::new();
        for entry in std::fs::read_dir(run_dir)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let number = name
                .strip_prefix(SOCKET_PREFIX)
                .and_then(|name| name.strip_suffix(SOCKET_SUFFIX))
                .and_then(|number| number.parse().ok());
            if let Some(number) = number {
                sockets.push((number, path));
            }
        }
        sockets.sort();
        Ok(sockets)
    }

    /// Makes sure that the process is gone. Its machines must not be given to another before that is true.
    pub(super) fn kill(mut self, limit: Duration) -> Result<(), PagerError> {
        let ended = end(&self.process, limit);
        if let Some(child) = &mut self.child
            && ended.is_ok()
        {
            let _ = child.wait();
        }
        let _ = std::fs::remove_file(&self.socket);
        ended
    }

    /// Waits for the end of a pager that has nothing left to do, then makes sure of it.
    pub(super) fn retire(self, limit: Duration) {
        let _ = is_ready(&self.process, limit);
        let _ = self.kill(limit);
    }
}

fn end(process: &OwnedFd, limit: Duration) -> Result<(), PagerError> {
    match rustix::process::pidfd_send_signal(process, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(PagerError::io("kill a pager")(error.into())),
    }
    // A pidfd becomes readable when its process ends.
    match is_ready(process, limit).map_err(PagerError::io("wait for a pager"))? {
        true => Ok(()),
        false => Err(PagerError::Deadline {
            what: "the end of a pager",
            limit,
        }),
    }
}

/// Real user of a process. The owner of its directory would not do: that is root for a process that hides itself.
fn uid_of(pid: i32) -> io::Result<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let uid = status.lines().find_map(|line| {
        line.strip_prefix("Uid:")?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    });
    uid.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

fn connect(
    socket: &Path,
    limit: Duration,
    report: impl Fn(Option<PagerEvent>) + Send + 'static,
) -> Result<(Link, Hello), PagerError> {
    let stream =
        through_directory(socket, |path| UnixStream::connect(path)).map_err(PagerError::lost)?;
    let mut link = Link::new(stream, report)?;
    match link.request(Request::Hello, &[], limit)?.reply {
        Reply::Hello(hello) if hello.protocol == PROTOCOL => Ok((link, hello)),
        other => Err(PagerError::lost(format!("it answers {other:?}"))),
    }
}

/// The socket's owner says later as whom the pager runs.
fn bind(socket: &Path, uid: Option<u32>) -> io::Result<UnixListener> {
    let _ = std::fs::remove_file(socket);
    let listener = through_directory(socket, |path| UnixListener::bind(path))?;
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(socket, private)?;
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(socket, uid, uid)?;
    }
    Ok(listener)
}

/// Calls `with` a short path to the same socket: the kernel takes 107 bytes, directories may be deeper.
fn through_directory<T>(socket: &Path, with: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let (Some(dir), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(dir, flags, Mode::empty())?;
    with(&Path::new(&format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name))
}
