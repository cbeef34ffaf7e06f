//! Machines whose memory comes from the pager.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use hypervisor::RamUse;
use hypervisor::conformance::{Machine, Rig, Saved};
use pager::{Attach, Config, Event, Limits, Settings, Supervisor};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::spawn_blocking;

use crate::extra::{paged, tag, template, wrong};
use crate::firecracker::Firecracker;
use crate::probe::BALLAST_PAGES;
use crate::{PAGER, probe};

/// Well above what anything here needs on a busy host.
const PATIENCE: Duration = Duration::from_secs(20);

/// Rounds of losing the pager.
const LOSSES: u64 = 5;

struct Paged {
    supervisor: Arc<Supervisor>,
    events: Receiver<Event>,
    dir: PathBuf,
}

impl Paged {
    async fn start(rig: &Rig<'_>, saved: &Saved) -> Self {
        let dir = rig.instance_dir();
        let config = Config {
            program: std::env::current_exe().unwrap(),
            arguments: vec![PAGER.into()],
            image_dir: saved.image.dir().to_path_buf(),
            run_dir: dir.join("run"),
            log: dir.join("pager.log"),
            uid: None,
            settings: Settings::default(),
            limits: Limits {
                start: PATIENCE,
                answer: PATIENCE,
                silence: PATIENCE,
                ..Limits::default()
            },
        };
        let (said, events) = channel();
        let supervisor = spawn_blocking(move || {
            Supervisor::start(config, move |event| drop(said.send(event))).unwrap()
        });
        Self {
            supervisor: Arc::new(supervisor.await.unwrap()),
            events,
            dir,
        }
    }

    async fn fork(&self, rig: &Rig<'_>, saved: &Saved, name: &str) -> Machine {
        let socket = self.dir.join(name);
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let (supervisor, vm) = (Arc::clone(&self.supervisor), name.to_owned());
        let attached = spawn_blocking(move || {
            let attach = Attach {
                vm,
                listener: &listener,
                expected_pid: None,
                limit: PATIENCE,
                hot_pages: None,
                record: false,
            };
            supervisor.attach(attach).unwrap();
        });
        let fork = rig.try_restore(paged(rig, saved, &socket)).await.unwrap();
        attached.await.unwrap();
        fork
    }
}

/// Forks on a pager have the template's memory and their own; a standby of one is a diff that needs no pager. What such
/// a fork has only read counts as written: KVM maps memory that is nobody else's for writing at once.
pub(crate) async fn forks_on_a_pager(subject: &Firecracker) {
    let rig = Rig::new(subject).await;
    let machine = rig.launch().await;
    let beats = probe::number(machine.vm.as_ref(), "beats").await;
    let saved = rig.standby(machine).await;
    let paged = Paged::start(&rig, &saved).await;
    let one = paged.fork(&rig, &saved, "one").await;
    let two = paged.fork(&rig, &saved, "two").await;
    assert!(probe::number(one.vm.as_ref(), "beats").await > beats);
    tag(&one, 0, 100, 2).await;
    assert_eq!(wrong(&two, 0, BALLAST_PAGES, 1).await, 0);
    let memory = two.vm.memory().unwrap().report().await.unwrap();
    assert!(
        memory.ram_private_bytes >= BALLAST_PAGES * memory::PAGE_BYTES as u64,
        "pages of a pager are private"
    );
    let diff = rig.standby(one).await;
    assert_eq!(diff.captured.linked_layers, 1);
    assert!(diff.captured.new_pages < 200, "{}", diff.captured.new_pages);
    let again = rig.restore(&diff.image, RamUse::Own).await;
    assert_eq!(wrong(&again, 0, 100, 2).await, 0);
    assert_eq!(wrong(&again, 100, BALLAST_PAGES - 100, 1).await, 0);
    for machine in [again, two] {
        machine.vm.kill().await.unwrap();
    }
}

/// A pager that is killed while a guest reads through it costs a pause and no wrong byte.
pub(crate) async fn lost_pager_costs_no_byte(subject: &Firecracker) {
    let rig = Rig::new(subject).await;
    let saved = template(&rig).await;
    let paged = Paged::start(&rig, &saved).await;
    for round in 0..LOSSES {
        let fork = paged.fork(&rig, &saved, &format!("fork{round}")).await;
        let pids = {
            let supervisor = Arc::clone(&paged.supervisor);
            spawn_blocking(move || supervisor.pids().unwrap())
                .await
                .unwrap()
        };
        let lost = async {
            for pid in pids {
                kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
            }
        };
        let (bad, ()) = tokio::join!(wrong(&fork, 0, BALLAST_PAGES, 1), lost);
        assert_eq!(bad, 0, "round {round}");
        let took_over = loop {
            match paged.events.recv_timeout(PATIENCE).unwrap() {
                Event::TookOver { vms, .. } => break vms,
                Event::Failed { reason, .. } => panic!("{reason}"),
                Event::Gone(_) | Event::Graduated(_) => {}
            }
        };
        assert!(took_over <= 1);
        assert_eq!(wrong(&fork, 0, BALLAST_PAGES, 1).await, 0);
        fork.vm.kill().await.unwrap();
    }
}
