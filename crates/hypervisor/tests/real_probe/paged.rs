//! Machines whose memory comes from the pager.

use std::fs::Permissions;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hypervisor::conformance::Rig;
use hypervisor::{ExitReason, RamUse, VmStatus};
use memory::{
    Draft, Encoding, Image, ImageId, MachineFacts, ManifestFacts, PAGE_BYTES, PageSource, Run,
    Verified,
};
use pager::Event;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::by_hand::{Balloon, ByHand, Load};
use crate::extra::{big_template, resident_pages, tag, template, wrong};
use crate::firecracker::Firecracker;
use crate::pagers::{PATIENCE, Paged, TICK, signal_all};
use crate::probe::{BALLAST_PAGES, BIG_PAGES, DEADLINE, FREE_PAGE, RAM_BYTES, number};

/// Pages that a count of resident ones may lack: the kernel counts for each processor, and adds up now and then.
const UNCOUNTED: u64 = 512;

/// Forks on a pager have the template's memory and their own; a standby of one is a diff that needs no pager. What such
/// a fork has only read counts as written: KVM maps memory that is nobody else's for writing at once.
pub(crate) async fn forks_on_a_pager(subject: &Firecracker) {
    let rig = Rig::new(subject).await;
    let machine = rig.launch().await;
    let beats = number(machine.vm.as_ref(), "beats").await;
    let saved = rig.standby(machine).await;
    let paged = Paged::start(&rig, &saved.image).await;
    let one = paged.fork(&rig, &saved, "one").await;
    let two = paged.fork(&rig, &saved, "two").await;
    assert!(number(one.vm.as_ref(), "beats").await > beats);
    tag(&one, 0, 100, 2).await;
    assert_eq!(wrong(&two, 0, BALLAST_PAGES, 1).await, 0);
    let memory = two.vm.memory().unwrap().report().await.unwrap();
    assert!(
        memory.ram_private_bytes >= BALLAST_PAGES * PAGE_BYTES as u64,
        "pages of a pager are private"
    );
    let diff = rig.standby(one).await;
    rig.expect_diff(&diff.captured, 200);
    let again = rig.restore(&diff.image, RamUse::Own).await;
    assert_eq!(wrong(&again, 0, 100, 2).await, 0);
    assert_eq!(wrong(&again, 100, BALLAST_PAGES - 100, 1).await, 0);
    for machine in [again, two] {
        machine.vm.kill().await.unwrap();
    }
}

/// A pager that is killed at any moment while a guest reads 64 MiB through it costs a pause and no wrong byte.
pub(crate) async fn lost_pager_costs_no_byte(subject: &Firecracker) {
    let rig = Rig::new(subject).await;
    let saved = big_template(&rig).await;
    let paged = Paged::start(&rig, &saved.image).await;
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..subject.losses() {
        let fork = paged.fork(&rig, &saved, &format!("fork{round}")).await;
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let moment = random % (BIG_PAGES - UNCOUNTED);
        let pid = fork.vm.process().pid;
        let (pagers, had) = (paged.pids().await, resident_pages(pid));
        let loss = async {
            while resident_pages(pid) < had + moment {
                tokio::time::sleep(TICK).await;
            }
            signal_all(&pagers, Signal::KILL);
        };
        let reading = async { tokio::join!(wrong(&fork, 0, BIG_PAGES, 1), loss) };
        let (bad, ()) = timeout(DEADLINE, reading).await.expect("it reads on");
        assert_eq!(bad, 0, "round {round}, at {moment}");
        let vms = paged.event(|event| match event {
            Event::TookOver { vms, .. } => Some(vms),
            Event::Failed { reason, .. } => panic!("{reason}"),
            Event::Gone(_) | Event::Graduated(_) => None,
        });
        assert!(vms.len() <= 1);
        assert_eq!(wrong(&fork, 0, BIG_PAGES, 1).await, 0);
        fork.vm.kill().await.unwrap();
    }
}

/// A pager that stands still stops the guest where it needs a page, and nothing else: Firecracker answers, and the guest
/// goes on where it was.
pub(crate) async fn a_waiting_guest_can_be_asked_about(subject: &Firecracker) {
    let rig = Rig::new(subject).await;
    let saved = template(&rig).await;
    let paged = Paged::start(&rig, &saved.image).await;
    let fork = paged.fork(&rig, &saved, "fork").await;
    // It has what it needs to answer.
    number(fork.vm.as_ref(), "beats").await;
    let pagers = paged.stop().await;
    let reading = wrong(&fork, 0, BALLAST_PAGES, 1);
    tokio::pin!(reading);
    let early = timeout(Duration::from_millis(200), &mut reading).await;
    assert!(early.is_err(), "it reads what nobody has given it");
    assert_eq!(fork.vm.status().await.unwrap(), VmStatus::Running);
    fork.vm.pause().await.unwrap();
    assert_eq!(fork.vm.status().await.unwrap(), VmStatus::Paused);
    fork.vm.resume().await.unwrap();
    pagers.go_on();
    assert_eq!(reading.await, 0);
    fork.vm.kill().await.unwrap();
}

/// A chunk that is not what it was: the fork that needs it is killed before it sees a byte of it, and the reason is told.
pub(crate) async fn a_damaged_chunk_ends_who_needs_it(subject: &Firecracker) {
    let rig = Rig::new(subject).await;
    let saved = template(&rig).await;
    let layer = &saved.image.manifest().layers[0].id;
    // The end of the ballast: nothing on the way to the first answer needs it.
    flip_last(&saved.image.dir().join(format!("ram-{layer}.pages")));
    let paged = Paged::start(&rig, &saved.image).await;
    // The state and the disks are as they were, and the driver reads no RAM of such a fork.
    let fork = paged.fork(&rig, &saved, "fork").await;
    number(fork.vm.as_ref(), "beats").await;
    let mut stream = fork.vm.dial(PATIENCE).await.unwrap();
    let command = format!("wrong {FREE_PAGE} {BALLAST_PAGES} 1\n");
    stream.write_all(command.as_bytes()).await.unwrap();
    let reason = paged.event(|event| match event {
        Event::Failed { vm, reason } if vm == "fork" => Some(reason),
        _ => None,
    });
    assert!(reason.contains("checksum"), "{reason}");
    let end = timeout(PATIENCE, fork.vm.exited()).await.unwrap();
    // The supervisor's signal, or what Firecracker makes of the kernel's at the page that cannot be had.
    assert_ne!(end, ExitReason::Code(0), "{end:?}");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    assert_eq!(answer, "", "it has read everything");
}

fn flip_last(path: &Path) {
    std::fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// A fork that was completed reads everything without its pager, which is gone.
pub(crate) async fn a_completed_fork_needs_no_pager(subject: &Firecracker) {
    let rig = Rig::new(subject).await;
    let saved = template(&rig).await;
    let paged = Paged::start(&rig, &saved.image).await;
    let fork = paged.fork(&rig, &saved, "fork").await;
    tag(&fork, 10, 10, 2).await;
    let supervisor = Arc::clone(&paged.supervisor);
    let asked = spawn_blocking(move || supervisor.graduate("fork", 1 << 30).unwrap());
    asked.await.unwrap();
    paged.event(|event| matches!(event, Event::Graduated(_)).then_some(()));
    drop(paged);
    assert_eq!(wrong(&fork, 0, 10, 1).await, 0);
    assert_eq!(wrong(&fork, 10, 10, 2).await, 0);
    assert_eq!(wrong(&fork, 20, BALLAST_PAGES - 20, 1).await, 0);
    tag(&fork, BALLAST_PAGES, 100, 3).await;
    assert_eq!(wrong(&fork, BALLAST_PAGES, 100, 3).await, 0);
    fork.vm.kill().await.unwrap();
}

/// Pages that a balloon gives back are zero afterwards, also those that were never touched, and also if the pager that
/// was told of it is gone.
pub(crate) async fn ballooned_pages_are_zero(subject: &Firecracker) {
    let rig = Rig::new(subject).await;
    let mut vm = ByHand::boot(&rig, subject, Balloon::Present);
    vm.ask(&format!("tag {FREE_PAGE} {BALLAST_PAGES} 1"));
    vm.set("Paused");
    let (state, ram) = vm.save("Diff", "saved");
    let image = image_of(&rig, &state, &ram);
    let paged = Paged::start(&rig, &image).await;
    let (socket, attached) = paged.await_vm("fork", None, false);
    let load = Load {
        state: &image.state_path(),
        memory: ("Uffd", &socket),
        resume: true,
    };
    let mut fork = ByHand::load(&rig, subject, &vm.dir.join("disk"), &load);
    attached.await.unwrap();
    let pages = |from: u64, count: u64| format!("{} {count}", FREE_PAGE + from);
    assert_eq!(fork.number(&format!("wrong {} 1", pages(0, 100))), 0);
    let told = paged.stats("fork").await.removed_bytes;
    // Of these the guest has read 100 pages.
    fork.ask(&format!("inflate {}", pages(50, 512)));
    let removed = paged.stats("fork").await.removed_bytes - told;
    assert_eq!(removed, 512 * PAGE_BYTES as u64);
    assert_eq!(fork.number(&format!("zeros {}", pages(50, 256))), 256);
    paged.kill().await;
    assert_eq!(fork.number(&format!("zeros {}", pages(50, 512))), 512);
    assert_eq!(fork.number(&format!("wrong {} 1", pages(0, 50))), 0);
    let rest = BALLAST_PAGES - 562;
    assert_eq!(fork.number(&format!("wrong {} 1", pages(562, rest))), 0);
    fork.ask(&format!("tag {} 2", pages(60, 10)));
    assert_eq!(fork.number(&format!("wrong {} 2", pages(60, 10))), 0);
}

/// RAM in a sparse file.
pub(crate) struct RamFile {
    file: std::fs::File,
    runs: Vec<Run>,
}

impl RamFile {
    pub(crate) fn of(path: &Path) -> Self {
        let file = std::fs::File::open(path).unwrap();
        let runs = memory::data_runs(&file).unwrap();
        Self { file, runs }
    }
}

impl PageSource for RamFile {
    fn runs(&self) -> &[Run] {
        &self.runs
    }

    fn read(&self, first: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        self.file.read_exact_at(buffer, first * PAGE_BYTES as u64)
    }
}

/// An image of what was saved by hand.
pub(crate) fn image_of(rig: &Rig<'_>, state: &Path, ram: &Path) -> Image {
    let dir = rig.instance_dir().join("image");
    let mut draft = Draft::create(&dir, ImageId::random().unwrap(), &Verified::default()).unwrap();
    let source = RamFile::of(ram);
    draft
        .write_layer_as(Encoding::Zstd, RAM_BYTES, &source)
        .unwrap();
    std::fs::copy(state, draft.state_path()).unwrap();
    let machine = MachineFacts {
        vmm: rig.driver.identity().clone(),
        vcpus: rig.subject.guest().vcpus(),
        ram_bytes: RAM_BYTES,
        cmdline: String::new(),
        kernel_sha256: "k".into(),
        initrd_sha256: "i".into(),
        root_sha256: "r".into(),
        nic: None,
    };
    let root_digest = "sha256:by-hand".into();
    draft
        .finish(ManifestFacts {
            machine,
            root_digest,
        })
        .unwrap()
}
