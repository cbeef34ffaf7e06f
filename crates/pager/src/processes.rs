//! Pagers as processes, one for each image in use, found again by the next daemon.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use crate::{
    Config, EventSink, ImagePager, Limits, PagerError, PagerHost, Place, Settings, Supervisor,
    Userfaultfd, check_confinement, userfaultfd,
};

/// Starts pagers as processes of their own, and finds those of earlier daemons.
#[derive(Debug, Clone)]
pub struct PagerProcesses {
    /// Program that is a pager when started with `arguments` and one more.
    pub program: PathBuf,
    /// Its first arguments, the word that asks for the role for example.
    pub arguments: Vec<OsString>,
    /// Tells programs apart: pagers of another build take no new machines.
    pub build: String,
    /// User and group that pagers become; none = the daemon's own.
    pub uid: Option<u32>,
    /// How pages are served.
    pub settings: Settings,
    /// How long things may take.
    pub limits: Limits,
    /// Why they cannot be used on this host, if they cannot; see [`look_for_userfaultfd`].
    pub lack: Option<String>,
}

/// What pagers need of this host, or why they cannot be used on it, tried as far as that goes without a machine: whether VMMs can have a
/// userfaultfd, and whether a pager can give up its rights. `program` is as in [`PagerProcesses`]; `own_users` says
/// whether VMMs run as users of their own.
pub fn look_for_userfaultfd(
    program: &Path,
    arguments: &[OsString],
    uid: Option<u32>,
    own_users: bool,
) -> Result<Userfaultfd, String> {
    let found = userfaultfd()?;
    if own_users && !found.unprivileged {
        return Err(
            "VMMs in jails cannot have a userfaultfd: this host has no /dev/userfaultfd (Linux 6.1), and vm.unprivileged_userfaultfd is 0; set it to 1 with sysctl, or set jail to off".to_owned(),
        );
    }
    let limit = Limits::default().start;
    check_confinement(program, arguments, uid, limit)?;
    Ok(found)
}

impl PagerHost for PagerProcesses {
    fn open(&self, place: &Place, on_event: EventSink) -> Result<Box<dyn ImagePager>, PagerError> {
        let config = Config {
            program: self.program.clone(),
            arguments: self.arguments.clone(),
            image_dir: place.image(),
            run_dir: place.run(),
            log: place.log(),
            uid: self.uid,
            settings: self.settings,
            limits: self.limits,
        };
        let supervisor = Supervisor::adopt(config, on_event)?;
        let known = std::fs::read_to_string(place.build()).unwrap_or_default();
        if known != self.build {
            self.renew(&supervisor, place);
        }
        Ok(Box::new(supervisor))
    }

    fn unusable(&self) -> Option<String> {
        self.lack.clone()
    }

    /// The kernel knows: it reports missing pages of what is registered, and of nothing else. The VMM itself holds
    /// the descriptor that ranges are registered by, so they stay registered when pager and daemon are gone.
    fn is_complete(&self, pid: i32) -> io::Result<bool> {
        let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps"))?;
        Ok(!waits_for_pages(&smaps))
    }

    fn has_swapped(&self) -> io::Result<bool> {
        Ok(swapped(&std::fs::read_to_string("/proc/meminfo")?))
    }
}

/// Whether the file says that something is swapped out.
fn swapped(meminfo: &str) -> bool {
    let kib = |name: &str| {
        let value = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        value.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    kib("SwapTotal:") > kib("SwapFree:")
}

impl PagerProcesses {
    /// Old pagers serve the machines they have to the end; those to come get the program of this daemon.
    fn renew(&self, supervisor: &Supervisor, place: &Place) {
        let renewed = match supervisor.pids() {
            Ok(pids) if pids.is_empty() => Ok(()),
            Ok(pids) => {
                info!(?pids, "pagers of another build take no new machines");
                supervisor.upgrade()
            }
            Err(error) => Err(error),
        };
        let noted = renewed.map_err(io::Error::other);
        if let Err(error) = noted.and_then(|()| std::fs::write(place.build(), &self.build)) {
            // They do serve; the next start tries again.
            warn!(place = %place.root().display(), %error, "the pagers of another build go on");
        }
    }
}

/// Whether a mapping is registered for missing pages, which is `um` among its flags.
fn waits_for_pages(smaps: &str) -> bool {
    let mut flags = smaps
        .lines()
        .filter_map(|line| line.strip_prefix("VmFlags:"));
    flags.any(|flags| flags.split_ascii_whitespace().any(|flag| flag == "um"))
}

#[cfg(test)]
mod tests {
    use super::{swapped, waits_for_pages};

    #[test]
    fn a_host_that_has_swapped_is_known() {
        let meminfo = |total: u64, free: u64| {
            format!("MemFree: 5 kB\nSwapCached: 0 kB\nSwapTotal: {total} kB\nSwapFree: {free} kB\n")
        };
        assert!(swapped(&meminfo(900, 896)));
        assert!(!swapped(&meminfo(900, 900)));
        assert!(!swapped(&meminfo(0, 0)));
        assert!(!swapped("MemFree: 5 kB\n"), "built without swap");
    }

    #[test]
    fn the_flag_is_found_among_others_only() {
        let mapping = |flags: &str| {
            format!("7f00-7f10 rw-p 00000000 00:00 0\nRss:  4 kB\nVmFlags: rd wr {flags} ac \n")
        };
        assert!(waits_for_pages(&(mapping("mr") + &mapping("um sd"))));
        assert!(!waits_for_pages(&(mapping("mr") + &mapping("umx uw"))));
    }
}
