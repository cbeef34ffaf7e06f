//! Pagers, and what is seen of them.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hypervisor::conformance::{Machine, Rig, Saved};
use memory::Image;
use pager::{Attach, Config, Event, HotPages, Limits, Settings, Supervisor, VmStats};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use crate::PAGER;
use crate::extra::paged_with;
use crate::probe::DEADLINE;

/// Well above what anything here needs on a busy host.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks at a machine.
pub(crate) const TICK: Duration = Duration::from_micros(200);

/// A user that owns nothing.
const PAGER_UID: u32 = 64_321;

/// A supervisor with its pager, and what it has said.
pub(crate) struct Paged {
    pub(crate) supervisor: Arc<Supervisor>,
    events: Mutex<Receiver<Event>>,
    dir: PathBuf,
}

impl Paged {
    pub(crate) async fn start(rig: &Rig<'_>, image: &Image) -> Self {
        Self::start_with(rig, image, Settings::default()).await
    }

    /// With settings of the caller's.
    pub(crate) async fn start_with(rig: &Rig<'_>, image: &Image, settings: Settings) -> Self {
        let dir = rig.instance_dir();
        let config = Config {
            program: std::env::current_exe().unwrap(),
            arguments: vec![PAGER.into()],
            image_dir: image.dir().to_path_buf(),
            run_dir: dir.join("run"),
            log: dir.join("pager.log"),
            uid: rustix::process::geteuid().is_root().then_some(PAGER_UID),
            settings,
            limits: Limits {
                start: PATIENCE,
                answer: PATIENCE,
                silence: PATIENCE,
                restarts: u32::MAX,
                ..Limits::default()
            },
        };
        let (said, events) = channel();
        let supervisor = spawn_blocking(move || {
            Supervisor::start(config, move |event| drop(said.send(event))).unwrap()
        });
        Self {
            supervisor: Arc::new(supervisor.await.unwrap()),
            events: Mutex::new(events),
            dir,
        }
    }

    pub(crate) async fn fork(&self, rig: &Rig<'_>, saved: &Saved, name: &str) -> Machine {
        let (socket, attached) = self.await_vm(name, None, false);
        let fork = rig
            .try_restore(paged_with(rig, &saved.image, &socket))
            .await
            .unwrap();
        attached.await.unwrap();
        fork
    }

    /// Waits at a new socket for the VMM that comes to it.
    pub(crate) fn await_vm(
        &self,
        name: &str,
        hot_pages: Option<HotPages>,
        record: bool,
    ) -> (PathBuf, JoinHandle<()>) {
        let socket = self.dir.join(name);
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let (supervisor, vm) = (Arc::clone(&self.supervisor), name.to_owned());
        let attached = spawn_blocking(move || {
            let attach = Attach {
                vm,
                listener: &listener,
                expected_pid: None,
                limit: PATIENCE,
                hot_pages,
                record,
            };
            supervisor.attach(attach).unwrap();
        });
        (socket, attached)
    }

    pub(crate) async fn kill(&self) {
        signal_all(&self.pids().await, Signal::KILL);
    }

    /// All pagers stand still from now on.
    pub(crate) async fn stop(&self) -> Stopped {
        let pids = self.pids().await;
        signal_all(&pids, Signal::STOP);
        Stopped { pids }
    }

    pub(crate) async fn pids(&self) -> Vec<i32> {
        let supervisor = Arc::clone(&self.supervisor);
        spawn_blocking(move || supervisor.pids().unwrap())
            .await
            .unwrap()
    }

    pub(crate) async fn stats(&self, vm: &str) -> VmStats {
        let supervisor = Arc::clone(&self.supervisor);
        let all = spawn_blocking(move || supervisor.stats().unwrap());
        let all = all.await.unwrap();
        all.into_iter().find(|named| named.vm == vm).unwrap().stats
    }

    /// The first event of which `wanted` makes something.
    pub(crate) fn event<T>(&self, wanted: impl Fn(Event) -> Option<T>) -> T {
        let events = self.events.lock().unwrap();
        tokio::task::block_in_place(|| {
            loop {
                let event = events.recv_timeout(PATIENCE).expect("an event");
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
        })
    }
}

/// Pagers that stand still. The supervisor cannot be asked about them: it may be waiting for an answer of theirs.
pub(crate) struct Stopped {
    pids: Vec<i32>,
}

impl Stopped {
    pub(crate) fn go_on(self) {
        signal_all(&self.pids, Signal::CONT);
    }
}

pub(crate) fn signal_all(pids: &[i32], signal: Signal) {
    for pid in pids {
        kill_process(Pid::from_raw(*pid).unwrap(), signal).unwrap();
    }
}

/// Waits until so many processors of a machine wait for a page.
pub(crate) async fn vcpus_wait(machine: &Machine, wanted: usize) {
    let tasks = format!("/proc/{}/task", machine.vm.process().pid);
    let waits = |task: &PathBuf| {
        let read = |name| std::fs::read_to_string(task.join(name)).unwrap_or_default();
        read("comm").starts_with("fc_vcpu") && read("wchan") == "handle_userfault"
    };
    let waiting = || {
        let tasks = std::fs::read_dir(&tasks).unwrap();
        tasks.map(|task| task.unwrap().path()).filter(waits).count()
    };
    let wait = async {
        while waiting() < wanted {
            tokio::time::sleep(TICK).await;
        }
    };
    timeout(DEADLINE, wait).await.expect("it waits for pages");
}

/// Fails if a pager was lost, or a machine could not be served.
pub(crate) fn sees_no_loss(paged: &Paged) {
    for event in paged.events.lock().unwrap().try_iter() {
        assert!(
            matches!(event, Event::Gone(_) | Event::Graduated(_)),
            "{event:?}"
        );
    }
}
