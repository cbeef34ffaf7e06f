//! Stopping every process of the machine but the agent.
//!
//! All of them live in one cgroup (version 2), which the kernel freezes and thaws as a whole: no
//! process is missed, none sees a signal, and one that is being killed may still die. The file
//! system of cgroups is mounted nowhere, so images find `/sys/fs/cgroup` as empty as it always was,
//! and may mount their own there. What they see then is a cgroup namespace that ends at this cgroup:
//! what a container engine in the guest makes lies below it and is frozen as well.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use protocol::{Failure, FailureKind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsmount, fsopen,
};

use crate::enclosure::Enclosure;
use crate::sys;

/// Name of the cgroup.
const PROGRAMS: &str = "programs";

/// Time in which all processes must stand still. It takes about a millisecond unless one is in the
/// midst of something the kernel does not interrupt, like waiting for a disk.
const STANDSTILL: Duration = Duration::from_secs(1);

/// Options of the mount. Those a kernel does not know are done without.
///
/// `favordynmods` (6.0): a process moves without waiting for a grace period of the whole system,
/// which would add some ten milliseconds to every command. `nsdelegate` (4.13): programs can neither
/// leave the cgroup nor freeze it themselves, after which no command could be started.
const OPTIONS: [&str; 2] = ["favordynmods", "nsdelegate"];

/// The cgroup of all processes but the agent.
#[derive(Debug)]
pub(crate) struct Freezer {
    enclosure: Enclosure,
    procs: OwnedFd,
    freeze: OwnedFd,
    events: OwnedFd,
}

impl Freezer {
    /// Makes the cgroup and gives this process, and so its children, their view of it. The
    /// descriptors are opened before that and keep the old view.
    pub(crate) fn create() -> io::Result<Self> {
        let top = mount()?;
        match mkdirat(&top, PROGRAMS, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let outside = Enclosure::new(open(&top, "cgroup.procs", OFlags::WRONLY)?);
        let open = |name: &str, flags| open(&top, &format!("{PROGRAMS}/{name}"), flags);
        let freezer = Freezer {
            enclosure: Enclosure::new(open("cgroup.procs", OFlags::WRONLY)?),
            procs: open("cgroup.procs", OFlags::RDONLY)?,
            freeze: open("cgroup.freeze", OFlags::WRONLY)?,
            events: open("cgroup.events", OFlags::RDONLY)?,
        };
        // A namespace begins where its maker is.
        freezer.enclosure.enter()?;
        let namespace = sys::new_cgroup_namespace();
        outside.enter()?;
        namespace?;
        Ok(freezer)
    }

    /// Where children go.
    pub(crate) fn enclosure(&self) -> &Enclosure {
        &self.enclosure
    }

    /// Returns when all processes stand still; after a failure all of them run.
    pub(crate) fn freeze(&self) -> Result<(), Failure> {
        let frozen = self.try_freeze();
        if !matches!(frozen, Ok(true)) {
            let moving = self.moving();
            self.thaw()?;
            return Err(match frozen {
                Ok(_) => Failure::new(
                    FailureKind::TimedOut,
                    format!("programs cannot be frozen: {moving}"),
                ),
                Err(error) => io_failure("freeze programs", &error),
            });
        }
        Ok(())
    }

    /// Lets all processes go on. Harmless when they run.
    pub(crate) fn thaw(&self) -> Result<(), Failure> {
        rustix::io::write(&self.freeze, b"0")
            .map(drop)
            .map_err(|error| io_failure("thaw programs", &error.into()))
    }

    fn try_freeze(&self) -> io::Result<bool> {
        rustix::io::write(&self.freeze, b"1")?;
        let begun = Instant::now();
        loop {
            // Asked for before the clock is: a machine that was not given the processor for a
            // while must not fail for that.
            let left = STANDSTILL.saturating_sub(begun.elapsed());
            if read_all(&self.events)?
                .lines()
                .any(|line| line == "frozen 1")
            {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
            let mut watched = [PollFd::new(&self.events, PollFlags::PRI)];
            let left = Timespec {
                tv_sec: 0,
                tv_nsec: left.subsec_nanos().into(),
            };
            match poll(&mut watched, Some(&left)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A process that the kernel does not interrupt, in words. Cgroups the programs made themselves
    /// are not searched.
    fn moving(&self) -> String {
        let pids = read_all(&self.procs).unwrap_or_default();
        let stuck = pids.lines().find_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            uninterruptible(&stat).map(|name| format!("process {pid} ({name}) waits in the kernel"))
        });
        stuck.unwrap_or_else(|| format!("not within {STANDSTILL:?}"))
    }
}

/// A mount of the hierarchy that only this process sees, as long as the descriptor is open.
fn mount() -> io::Result<OwnedFd> {
    let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for option in OPTIONS {
        match fsconfig_set_flag(&context, option) {
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    fsconfig_create(&context)?;
    Ok(fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?)
}

fn open(directory: &OwnedFd, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(openat(
        directory,
        name,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// The whole of a file of the kernel's, up to a page. Looking from the start again also arms the
/// next notice of a change.
fn read_all(file: impl AsFd) -> io::Result<String> {
    let mut bytes = [0; 4096];
    let len = rustix::io::pread(file, &mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes[..len]).into_owned())
}

/// The name of the process, if its line in `/proc` says that it waits for something that no signal
/// ends.
fn uninterruptible(stat: &str) -> Option<&str> {
    // The name may hold anything, parentheses too.
    let (front, back) = stat.rsplit_once(") ")?;
    let (_, name) = front.split_once('(')?;
    back.starts_with('D').then_some(name)
}

fn io_failure(what: &str, error: &io::Error) -> Failure {
    Failure::new(FailureKind::Io, format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stuck_processes_are_named() {
        assert_eq!(
            uninterruptible("7 (a) D (odd) D 1 7 7 0"),
            Some("a) D (odd")
        );
        assert_eq!(uninterruptible("8 (D) S 1 8 8 0"), None);
        assert_eq!(uninterruptible("rubbish"), None);
    }
}
