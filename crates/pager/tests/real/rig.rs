//! A supervisor with real pagers, and what it has said.

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use pager::{
    Attach, Config, Event, HotPages, Limits, NamedStats, PagerError, Settings, Supervisor,
};
use rustix::process::{Pid, Signal};

use super::guest::{Guest, PATIENCE};
use super::reference::Reference;

/// A user that owns nothing.
const PAGER_UID: u32 = 64_321;

/// Everything for one image.
pub(crate) struct Rig {
    pub(crate) supervisor: Supervisor,
    pub(crate) events: Receiver<Event>,
    pub(crate) config: Config,
}

/// A configuration with patience for busy machines.
pub(crate) fn config(run_dir: &Path, image_dir: &Path) -> Config {
    Config {
        program: env!("CARGO_BIN_EXE_coppice-pager").into(),
        arguments: Vec::new(),
        image_dir: image_dir.to_path_buf(),
        run_dir: run_dir.to_path_buf(),
        log: run_dir.join("pager.log"),
        uid: rustix::process::geteuid().is_root().then_some(PAGER_UID),
        settings: Settings::default(),
        limits: Limits {
            start: Duration::from_secs(20),
            answer: Duration::from_secs(20),
            silence: Duration::from_secs(20),
            takeover: Duration::from_secs(20),
            ..Limits::default()
        },
    }
}

impl Rig {
    pub(crate) fn start(config: Config) -> Self {
        let (said, events) = channel();
        let supervisor = Supervisor::start(config.clone(), move |event| {
            let _ = said.send(event);
        })
        .unwrap();
        Self {
            supervisor,
            events,
            config,
        }
    }

    /// What another daemon has when it has found the pagers of one before it.
    pub(crate) fn adopt(config: Config) -> Self {
        let (said, events) = channel();
        let supervisor = Supervisor::adopt(config.clone(), move |event| {
            let _ = said.send(event);
        })
        .unwrap();
        Self {
            supervisor,
            events,
            config,
        }
    }

    pub(crate) fn of(run_dir: &Path, reference: &Reference) -> Self {
        Self::start(config(run_dir, &reference.dir))
    }

    /// A guest that has handed its memory over.
    pub(crate) fn guest(&self, vm: &str, reference: &Reference) -> Guest {
        self.guest_with(vm, reference, None)
    }

    /// One with hot pages, or none and a recording.
    pub(crate) fn guest_with(
        &self,
        vm: &str,
        reference: &Reference,
        hot_pages: Option<HotPages>,
    ) -> Guest {
        let mut guest = Guest::start(reference.bytes.len());
        guest.tell("hand-over");
        let record = hot_pages.is_none();
        self.attach(vm, &guest, hot_pages, record).unwrap();
        assert_eq!(guest.result().as_deref(), Some("done"));
        guest
    }

    pub(crate) fn attach(
        &self,
        vm: &str,
        guest: &Guest,
        hot_pages: Option<HotPages>,
        record: bool,
    ) -> Result<(), PagerError> {
        self.supervisor.attach(Attach {
            vm: vm.into(),
            listener: &guest.listener,
            expected_pid: Some(guest.pid()),
            limit: PATIENCE,
            hot_pages,
            record,
        })
    }

    pub(crate) fn pid(&self) -> i32 {
        *self.supervisor.pids().unwrap().last().unwrap()
    }

    /// Kills the pager for machines to come.
    pub(crate) fn signal_pager(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Waits until another pager has the machines of one that was lost, and names them.
    pub(crate) fn took_over(&self) -> Vec<String> {
        self.event(|event| match event {
            Event::TookOver { vms, .. } => Some(vms),
            _ => None,
        })
    }

    pub(crate) fn stats(&self, vm: &str) -> NamedStats {
        let stats = self.supervisor.stats().unwrap();
        stats.into_iter().find(|stats| stats.vm == vm).unwrap()
    }

    /// The first event that `wanted` makes something of; others are passed over.
    pub(crate) fn event<T>(&self, wanted: impl Fn(Event) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self
                .events
                .recv_timeout(left)
                .expect("the event did not come");
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    }

    /// Why the machine was killed.
    pub(crate) fn failure(&self, wanted: &str) -> String {
        self.event(|event| match event {
            Event::Failed { vm, reason } if vm == wanted => Some(reason),
            _ => None,
        })
    }
}

pub(crate) fn send(pid: i32, signal: Signal) {
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Waits until a process is gone.
pub(crate) fn wait_for_end(pid: i32) {
    let Ok(pidfd) = rustix::process::pidfd_open(
        Pid::from_raw(pid).unwrap(),
        rustix::process::PidfdFlags::empty(),
    ) else {
        return;
    };
    let mut fds = [rustix::event::PollFd::new(
        &pidfd,
        rustix::event::PollFlags::IN,
    )];
    let timeout = rustix::event::Timespec {
        tv_sec: 60,
        tv_nsec: 0,
    };
    assert!(
        rustix::event::poll(&mut fds, Some(&timeout)).unwrap() > 0,
        "it does not end"
    );
}
