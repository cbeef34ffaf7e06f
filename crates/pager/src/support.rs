//! What a host must have for pagers, and whether this one does.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags};

use crate::client::is_ready;
use crate::process::CHECK;
use crate::sys::{UFFD_FEATURE_EVENT_REMOVE, UFFD_FEATURE_POISON, Uffd};

/// Whether processes without privileges may make a userfaultfd that catches the kernel's accesses too.
const UNPRIVILEGED: &str = "/proc/sys/vm/unprivileged_userfaultfd";

/// The userfaultfd of this host, as VMMs need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Userfaultfd {
    /// It can be had from `/dev/userfaultfd`; else by the system call only.
    pub device: bool,
    /// VMMs that run as users of their own can have it: from the device, which their jails get, or because the host
    /// lets everybody have it.
    pub unprivileged: bool,
    /// A page that cannot be had ends its machine even while no daemon is there (Linux 6.6).
    pub poison: bool,
}

/// Tries whether this process can have a userfaultfd that reports missing and removed pages. The error says in words
/// what is to be done.
pub fn userfaultfd() -> Result<Userfaultfd, String> {
    let by_device = Uffd::by_device();
    let device = by_device.is_ok();
    let uffd = by_device
        .or_else(|_| Uffd::by_call())
        .map_err(|error| refused(&error))?;
    // None are asked for, so that all are named.
    let features = uffd.agree(0).map_err(|error| refused(&error))?;
    let everybody = std::fs::read_to_string(UNPRIVILEGED).is_ok_and(|text| text.trim() == "1");
    judge(features, device, everybody)
}

fn judge(features: u64, device: bool, everybody: bool) -> Result<Userfaultfd, String> {
    if features & UFFD_FEATURE_EVENT_REMOVE == 0 {
        return Err(
            "the userfaultfd of this kernel does not report removed pages; Linux 4.11 or newer does"
                .to_owned(),
        );
    }
    Ok(Userfaultfd {
        device,
        unprivileged: device || everybody,
        poison: features & UFFD_FEATURE_POISON != 0,
    })
}

fn refused(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => {
            "this kernel has no userfaultfd; one with CONFIG_USERFAULTFD is needed".to_owned()
        }
        Some(libc::EPERM | libc::EACCES) => {
            "userfaultfd is not permitted here: run coppiced as root, or let its user open /dev/userfaultfd; in a container, its seccomp profile must allow userfaultfd".to_owned()
        }
        _ => format!("userfaultfd cannot be used: {error}"),
    }
}

/// Starts the program of pagers and has it give up its rights, as pagers do before they serve: network, user, and
/// system calls. `arguments` lead to [`crate::main`]. The error says what cannot be given up.
pub fn check_confinement(
    program: &Path,
    arguments: &[OsString],
    uid: Option<u32>,
    limit: Duration,
) -> Result<(), String> {
    let failed = |error: io::Error| format!("a pager cannot be started: {error}");
    let mut child = Command::new(program)
        .args(arguments)
        .arg(CHECK)
        .args(uid.map(|uid| uid.to_string()))
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let ended = watch(child.id()).and_then(|process| is_ready(process, limit));
    if !ended.is_ok_and(|ended| ended) {
        let _ = child.kill();
    }
    // What it says fits into a pipe.
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(match said.trim() {
        "" => format!(
            "a pager ends with {} when it gives up its rights",
            output.status
        ),
        said => said.to_owned(),
    })
}

fn watch(pid: u32) -> io::Result<std::os::fd::OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_in_words() {
        let of = |code| refused(&io::Error::from_raw_os_error(code));
        assert!(of(libc::ENOSYS).contains("CONFIG_USERFAULTFD"));
        for code in [libc::EPERM, libc::EACCES] {
            assert!(of(code).contains("run coppiced as root"), "{}", of(code));
        }
        assert!(of(libc::EMFILE).contains("cannot be used"));
        let blind = judge(UFFD_FEATURE_POISON, true, true).unwrap_err();
        assert!(blind.contains("removed pages"), "{blind}");
    }

    #[test]
    fn who_can_have_one_depends_on_the_device_or_the_host() {
        let unprivileged = |device, everybody| {
            let found = judge(UFFD_FEATURE_EVENT_REMOVE, device, everybody).unwrap();
            assert!(!found.poison);
            found.unprivileged
        };
        assert!(unprivileged(true, false) && unprivileged(false, true));
        assert!(!unprivileged(false, false));
    }
}
