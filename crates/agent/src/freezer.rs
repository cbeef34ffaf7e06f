//! Stopping every process of the machine but the agent.
//!
//! All of them live in one cgroup (version 2), which the kernel freezes and thaws as a whole: no
//! process is missed, none sees a signal, and one that is being killed may still die. The file
//! system of cgroups is mounted nowhere, so images find `/sys/fs/cgroup` as empty as it always was,
//! and may mount their own there. What they see then is a cgroup namespace that ends at this cgroup:
//! what a container engine in the guest makes lies below it and is frozen as well.
//!
//! The kernel's word that a cgroup is frozen holds for one without cgroups below it: it is given as
//! soon as either all processes of the cgroup itself stand still, or all of those below. So in the
//! other case the processes are looked at one by one.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
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

/// Name of the cgroup beside it, where the agent's own program runs while the other is frozen.
const ASIDE: &str = "aside";

/// Time in which all processes must stand still. It takes about a millisecond unless one is in the
/// midst of something the kernel does not interrupt, like waiting for a disk.
const STANDSTILL: Duration = Duration::from_secs(1);

/// Time between two looks at the processes one by one.
const LOOK: Duration = Duration::from_millis(2);

/// Options of the mount. Those a kernel does not know are done without.
///
/// `favordynmods` (6.0): a process moves without waiting for a grace period of the whole system,
/// which would add some ten milliseconds to every command. `nsdelegate` (4.13): programs can neither
/// leave the cgroup nor freeze it themselves, after which no command could be started.
const OPTIONS: [&str; 2] = ["favordynmods", "nsdelegate"];

/// Marks threads of the kernel in `/proc/PID/stat`; linux/sched.h.
const PF_KTHREAD: u32 = 0x0020_0000;

/// The cgroup of all processes but the agent, and an empty one beside it.
#[derive(Debug)]
pub(crate) struct Freezer {
    enclosure: Enclosure,
    freeze: OwnedFd,
    events: OwnedFd,
    stat: OwnedFd,
    aside: Enclosure,
    aside_freeze: OwnedFd,
}

impl Freezer {
    /// Makes the cgroup and gives this process, and so its children, their view of it. The
    /// descriptors are opened before that and keep the old view.
    pub(crate) fn create() -> io::Result<Self> {
        let top = mount()?;
        for name in [PROGRAMS, ASIDE] {
            match mkdirat(&top, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let outside = Enclosure::new(open(&top, "cgroup.procs", OFlags::WRONLY)?);
        let open = |cgroup: &str, name: &str, flags| open(&top, &format!("{cgroup}/{name}"), flags);
        let freezer = Freezer {
            enclosure: Enclosure::new(open(PROGRAMS, "cgroup.procs", OFlags::WRONLY)?),
            freeze: open(PROGRAMS, "cgroup.freeze", OFlags::WRONLY)?,
            events: open(PROGRAMS, "cgroup.events", OFlags::RDONLY)?,
            stat: open(PROGRAMS, "cgroup.stat", OFlags::RDONLY)?,
            aside: Enclosure::new(open(ASIDE, "cgroup.procs", OFlags::WRONLY)?),
            aside_freeze: open(ASIDE, "cgroup.freeze", OFlags::WRONLY)?,
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

    /// Where the agent's own program goes, which must run while the others stand still.
    pub(crate) fn aside(&self) -> &Enclosure {
        &self.aside
    }

    /// Freezes and thaws the cgroup aside, in which nothing is.
    pub(crate) fn rehearse(&self) -> io::Result<()> {
        for state in [b"1", b"0"] {
            rustix::io::write(&self.aside_freeze, state)?;
        }
        Ok(())
    }

    /// Returns when all processes stand still; after a failure all of them run.
    pub(crate) fn freeze(&self) -> Result<(), Failure> {
        let failure = match self.try_freeze() {
            Ok(true) => return Ok(()),
            Ok(false) => {
                let why = match restless() {
                    Ok(Some(process)) => process,
                    Ok(None) | Err(_) => format!("not within {STANDSTILL:?}"),
                };
                Failure::new(
                    FailureKind::TimedOut,
                    format!("programs cannot be frozen: {why}"),
                )
            }
            Err(error) => io_failure("freeze programs", &error),
        };
        self.thaw()?;
        Err(failure)
    }

    /// Lets all processes go on. Harmless when they run.
    pub(crate) fn thaw(&self) -> Result<(), Failure> {
        rustix::io::write(&self.freeze, b"0")
            .map(drop)
            .map_err(|error| io_failure("thaw programs", &error.into()))
    }

    fn try_freeze(&self) -> io::Result<bool> {
        // Every process ends the system call it is in and makes no other one after this write, so
        // what is looked at below was made before it, or is seen then.
        let mut has_children = self.has_children()?;
        rustix::io::write(&self.freeze, b"1")?;
        let begun = Instant::now();
        loop {
            // The clock is looked at first: a machine that was not given the processor for a while
            // must not fail for that.
            let left = STANDSTILL.saturating_sub(begun.elapsed());
            let told = has_line(&self.events, "frozen 1")?;
            has_children |= self.has_children()?;
            if told && (!has_children || restless()?.is_none()) {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
            // Nothing is told about single processes.
            let pause = if told { left.min(LOOK) } else { left };
            let pause = Timespec {
                tv_sec: 0,
                tv_nsec: pause.subsec_nanos().into(),
            };
            let mut watched = [PollFd::new(&self.events, PollFlags::PRI)];
            match poll(&mut watched, Some(&pause)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn has_children(&self) -> io::Result<bool> {
        Ok(!has_line(&self.stat, "nr_descendants 0")?)
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

/// Whether a short file of the kernel's has this line. Looking from the start again also arms the
/// next notice of a change.
fn has_line(file: &OwnedFd, line: &str) -> io::Result<bool> {
    let mut bytes = [0; 512];
    let len = rustix::io::pread(file, &mut bytes, 0)?;
    Ok(bytes[..len]
        .split(|byte| *byte == b'\n')
        .any(|found| found == line.as_bytes()))
}

/// A process that does not stand still, in words.
///
/// A process that is told to freeze is woken from every sleep that can be interrupted, and goes to
/// none before it is frozen. So what sleeps then is frozen, and what runs or waits for something that
/// nothing interrupts is not.
fn restless() -> io::Result<Option<String>> {
    let own = std::process::id();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // What ends meanwhile stands still as well.
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
            continue;
        };
        for thread in threads.flatten() {
            let stat = fs::read(thread.path().join("stat")).unwrap_or_default();
            if pid != own
                && let Some(what) = movement(&String::from_utf8_lossy(&stat))
            {
                return Ok(Some(format!("process {pid} {what}")));
            }
        }
    }
    Ok(None)
}

/// What a thread is doing by its line in `/proc`, unless it stands still or is the kernel's own.
fn movement(stat: &str) -> Option<String> {
    // The name may hold anything, parentheses too.
    let (front, back) = stat.rsplit_once(") ")?;
    let (_, name) = front.split_once('(')?;
    let mut fields = back.split(' ');
    let does = match fields.next()? {
        "R" => "runs",
        "D" => "waits in the kernel",
        _ => return None,
    };
    let flags: u32 = fields.nth(5)?.parse().ok()?;
    (flags & PF_KTHREAD == 0).then(|| format!("({name}) {does}"))
}

fn io_failure(what: &str, error: &io::Error) -> Failure {
    Failure::new(FailureKind::Io, format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(stat: &str, expected: Option<&str>) {
        assert_eq!(movement(stat).as_deref(), expected, "{stat}");
    }

    #[test]
    fn moving_processes_are_told_from_those_that_stand_still() {
        check(
            "7 (a) R (odd) D 1 7 7 0 -1 4194560 78",
            Some("(a) R (odd) waits in the kernel"),
        );
        check("7 (dd) R 1 7 7 0 -1 4194560 78", Some("(dd) runs"));
        for state in ["S", "T", "t", "Z"] {
            check(&format!("8 (D) {state} 1 8 8 0 -1 4194560 78"), None);
        }
        check("26 (writeback) D 2 0 0 0 -1 69238880 0", None);
        check("", None);
    }

    #[test]
    fn a_running_process_is_found() {
        let mut busy = std::process::Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .unwrap();
        let found = restless();
        busy.kill().unwrap();
        busy.wait().unwrap();
        assert!(found.unwrap().is_some());
    }
}
