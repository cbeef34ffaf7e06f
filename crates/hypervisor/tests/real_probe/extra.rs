//! What the suite does not ask of every driver.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hypervisor::conformance::{Machine, Place, Rig, Saved, finish};
use hypervisor::firecracker::{FirecrackerConfig, FirecrackerDriver};
use hypervisor::{Driver, MemoryBackend, Nic, RamUse, RestorePlan, VmmError, Wake};
use memory::{Draft, How, Image, ImageId, PAGE_BYTES, Verified};
use tokio::io::{AsyncReadExt, BufReader};
use tokio::time::timeout;

use crate::firecracker::Firecracker;
use crate::network::Network;
use crate::probe::{
    BALLAST_PAGES, BIG_PAGES, DEADLINE, FREE_PAGE, RAM_BYTES, line, line_on, number,
};
use crate::{eight, facts, jails, paged, two_vcpus};

pub(crate) type Run = for<'a> fn(&'a Firecracker) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Tests by name.
pub(crate) const ALL: [(&str, Run); 18] = [
    ("saves_what_was_written", |subject| {
        Box::pin(saves_what_was_written(subject))
    }),
    ("eight_forks", |subject| Box::pin(eight_forks(subject))),
    ("refused_load_leaves_nothing", |subject| {
        Box::pin(refused_load_leaves_nothing(subject))
    }),
    ("absent_pager_is_told", |subject| {
        Box::pin(absent_pager_is_told(subject))
    }),
    ("silent_pager_is_given_up", |subject| {
        Box::pin(silent_pager_is_given_up(subject))
    }),
    ("fork_has_another_tap", |subject| {
        Box::pin(fork_has_another_tap(subject))
    }),
    ("saving_ends_connections", |subject| {
        Box::pin(saving_ends_connections(subject))
    }),
    ("forks_on_a_pager", |subject| {
        Box::pin(paged::forks_on_a_pager(subject))
    }),
    ("lost_pager_costs_no_byte", |subject| {
        Box::pin(paged::lost_pager_costs_no_byte(subject))
    }),
    ("a_waiting_guest_can_be_asked_about", |subject| {
        Box::pin(paged::a_waiting_guest_can_be_asked_about(subject))
    }),
    ("one_of_eight_ends_alone", |subject| {
        Box::pin(eight::one_of_eight_ends_alone(subject))
    }),
    ("one_of_eight_stands_still", |subject| {
        Box::pin(eight::one_of_eight_stands_still(subject))
    }),
    ("a_damaged_chunk_ends_who_needs_it", |subject| {
        Box::pin(paged::a_damaged_chunk_ends_who_needs_it(subject))
    }),
    ("a_completed_fork_needs_no_pager", |subject| {
        Box::pin(paged::a_completed_fork_needs_no_pager(subject))
    }),
    ("ballooned_pages_are_zero", |subject| {
        Box::pin(paged::ballooned_pages_are_zero(subject))
    }),
    ("diffs_are_sparse_and_complete", |subject| {
        Box::pin(facts::diffs_are_sparse_and_complete(subject))
    }),
    ("disks_are_exchanged_before_a_resume", |subject| {
        Box::pin(facts::disks_are_exchanged_before_a_resume(subject))
    }),
    ("damaged_files_end_the_process", |subject| {
        Box::pin(facts::damaged_files_end_the_process(subject))
    }),
];

/// Tests of jailed machines.
pub(crate) const JAILED: [(&str, Run); 4] = [
    ("machines_are_apart", |subject| {
        Box::pin(jails::machines_are_apart(subject))
    }),
    ("forks_on_a_pager", |subject| {
        Box::pin(paged::forks_on_a_pager(subject))
    }),
    ("lost_pager_costs_no_byte", |subject| {
        Box::pin(paged::lost_pager_costs_no_byte(subject))
    }),
    ("a_damaged_chunk_ends_who_needs_it", |subject| {
        Box::pin(paged::a_damaged_chunk_ends_who_needs_it(subject))
    }),
];

/// Tests of machines of two processors.
pub(crate) const TWO_VCPUS: [(&str, Run); 5] = [
    ("both_go_on", |subject| {
        Box::pin(two_vcpus::both_go_on(subject))
    }),
    ("faults_of_both_are_in_flight", |subject| {
        Box::pin(two_vcpus::faults_of_both_are_in_flight(subject))
    }),
    ("forks_on_a_pager", |subject| {
        Box::pin(paged::forks_on_a_pager(subject))
    }),
    ("lost_pager_costs_no_byte", |subject| {
        Box::pin(paged::lost_pager_costs_no_byte(subject))
    }),
    ("one_of_eight_storms", |subject| {
        Box::pin(eight::one_of_eight_storms(subject))
    }),
];

/// Pages that a guest and its devices write while a few commands are answered.
const AROUND: u64 = 64;

/// A machine whose guest has filled its ballast, in standby.
pub(crate) async fn template(rig: &Rig<'_>) -> Saved {
    let machine = rig.launch().await;
    rig.standby(machine).await
}

/// As [`template`], with 64 MiB that were filled.
pub(crate) async fn big_template(rig: &Rig<'_>) -> Saved {
    let machine = rig.launch().await;
    tag(&machine, 0, BIG_PAGES, 1).await;
    rig.standby(machine).await
}

/// Pages that a process has in memory, or almost.
pub(crate) fn resident_pages(pid: i32) -> u64 {
    let counts = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    counts.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Pages `first..first + count` of the ballast that do not hold what the guest was told to write with `seed`.
pub(crate) async fn wrong(machine: &Machine, first: u64, count: u64, seed: u64) -> u64 {
    let first = FREE_PAGE + first;
    number(
        machine.vm.as_ref(),
        &format!("wrong {first} {count} {seed}"),
    )
    .await
}

pub(crate) async fn tag(machine: &Machine, first: u64, count: u64, seed: u64) {
    let first = FREE_PAGE + first;
    line(machine.vm.as_ref(), &format!("tag {first} {count} {seed}")).await;
}

/// The first image is sparse, later ones hold the pages that were written, and the guest goes on where it was.
async fn saves_what_was_written(subject: &Firecracker) {
    let rig = Rig::new(subject).await;
    let machine = rig.launch().await;
    let beats = number(machine.vm.as_ref(), "beats").await;
    let first = rig.standby(machine).await;
    expect_about(first.captured.new_pages, BALLAST_PAGES);
    let allocated = allocated(first.image.dir());
    assert!(
        allocated < RAM_BYTES / 8,
        "an image of few pages takes {allocated} bytes"
    );

    let machine = rig.restore(&first.image, RamUse::Own).await;
    assert!(number(machine.vm.as_ref(), "beats").await > beats);
    assert_eq!(wrong(&machine, 0, BALLAST_PAGES, 1).await, 0);
    tag(&machine, 100, 200, 2).await;
    let second = rig.standby(machine).await;
    let all = rig.subject.saves_all();
    expect_about(
        second.captured.new_pages,
        if all { BALLAST_PAGES } else { 200 },
    );

    let machine = rig.restore(&second.image, RamUse::Own).await;
    assert_eq!(wrong(&machine, 0, 100, 1).await, 0);
    assert_eq!(wrong(&machine, 100, 200, 2).await, 0);
    assert_eq!(wrong(&machine, 300, BALLAST_PAGES - 300, 1).await, 0);
    machine.vm.kill().await.unwrap();
}

fn expect_about(found: u64, wanted: u64) {
    assert!(
        (wanted..wanted + AROUND).contains(&found),
        "{found} pages were saved of about {wanted}"
    );
}

/// Bytes on disk below a directory.
fn allocated(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap();
    let blocks = entries.map(|entry| entry.unwrap().metadata().unwrap().blocks());
    blocks.sum::<u64>() * 512
}

/// Each sees its own pages and disk, and the template's where it has written none; the image stays as it was.
async fn eight_forks(subject: &Firecracker) {
    let rig = Rig::new(subject).await;
    let saved = template(&rig).await;
    let mut forks = Vec::new();
    for seed in 10..18 {
        let fork = rig.restore(&saved.image, RamUse::Fork).await;
        tag(&fork, 0, 64, seed).await;
        rig.put(&fork, Place::Disk, "seed", &seed.to_string()).await;
        forks.push((seed, fork));
    }
    for (seed, fork) in &forks {
        assert_eq!(wrong(fork, 0, 64, *seed).await, 0, "fork {seed}");
        assert_eq!(wrong(fork, 64, BALLAST_PAGES - 64, 1).await, 0);
        assert_eq!(
            rig.get(fork, Place::Disk, "seed").await,
            seed.to_string(),
            "fork {seed}"
        );
        let memory = fork.vm.memory().unwrap().report().await.unwrap();
        let own = memory.ram_private_bytes / PAGE_BYTES as u64;
        assert!(
            own < 64 + 2 * AROUND,
            "a fork that wrote 64 pages has {own}"
        );
    }
    let inodes: BTreeSet<u64> = forks
        .iter()
        .map(|(_, fork)| std::fs::metadata(fork.dir.join("run/disk")).unwrap().ino())
        .collect();
    assert_eq!(inodes.len(), forks.len(), "each has a disk of its own");
    for (_, fork) in &forks {
        fork.vm.kill().await.unwrap();
    }
    // Every byte is read.
    saved.image.verify(&Verified::default()).unwrap();
}

/// A machine that was saved and goes on hears nobody who spoke to it before, and they are told at once.
async fn saving_ends_connections(subject: &Firecracker) {
    let rig = Rig::new(subject).await;
    let machine = rig.launch().await;
    let mut stream = BufReader::new(machine.vm.dial(DEADLINE).await.unwrap());
    let beats = line_on(&mut stream, "beats").await;
    machine.vm.pause().await.unwrap();
    let (draft, _) = rig.capture(&machine).await;
    draft.abandon();
    // It still stands.
    let heard = timeout(DEADLINE, stream.read_u8()).await.expect("an end");
    assert_eq!(heard.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    machine.vm.resume().await.unwrap();
    let later = number(machine.vm.as_ref(), "beats").await;
    assert!(later > beats.parse().unwrap());
    machine.vm.kill().await.unwrap();
}

/// A state that our digests know and Firecracker does not take: the process is gone, and its reason is told.
async fn refused_load_leaves_nothing(subject: &Firecracker) {
    let rig = Rig::new(subject).await;
    let machine = rig.launch().await;
    machine.vm.pause().await.unwrap();
    let (mut good, captured) = rig.capture(&machine).await;
    machine.vm.quit().await.unwrap();
    rig.add_disks(&mut good, &machine, How::Copy);
    let good = finish(good, &captured);

    let id = ImageId::random().unwrap();
    let dir = machine.dir.join("memory").join(id.as_str());
    let mut bad = Draft::create(&dir, id, &Verified::default()).unwrap();
    for layer in &good.manifest().layers {
        bad.link_layer(&good, &layer.id).unwrap();
    }
    let mut state = std::fs::read(good.state_path()).unwrap();
    let middle = state.len() / 2;
    state[middle] ^= 1;
    std::fs::write(bad.state_path(), state).unwrap();
    rig.add_disks(&mut bad, &machine, How::Copy);
    let bad = finish(bad, &captured);

    let plan = rig.restore_plan(&bad, RamUse::Fork, Wake::Running);
    let run_dir = plan.run_dir.clone();
    match rig.driver.restore(plan).await.err() {
        Some(VmmError::Refused { message, .. }) => {
            assert!(message.contains("CRC"), "{message}");
        }
        other => panic!("{other:?} instead of a refusal"),
    }
    assert!(rig.driver.adopt(&run_dir).await.unwrap().is_none());
    let machine = rig.restore(&good, RamUse::Fork).await;
    assert_eq!(wrong(&machine, 0, BALLAST_PAGES, 1).await, 0);
    machine.vm.kill().await.unwrap();
}

/// A fork keeps the card's address on a device of another namespace.
async fn fork_has_another_tap(subject: &Firecracker) {
    let (Some(one), Some(two)) = (Network::make(), Network::make()) else {
        println!("  skipped: there is no network to put a machine into");
        return;
    };
    let rig = Rig::new(subject).await;
    let mut plan = rig.launch_plan();
    plan.nic = Some(one.nic());
    let saved = {
        let machine = rig.start(plan).await;
        rig.standby(machine).await
    };
    let plan = |nic: Nic| RestorePlan {
        nic: Some(nic),
        ..rig.restore_plan(&saved.image, RamUse::Fork, Wake::Running)
    };
    let forks = [
        rig.try_restore(plan(one.nic())).await.unwrap(),
        rig.try_restore(plan(two.nic())).await.unwrap(),
    ];
    for fork in &forks {
        assert_eq!(wrong(fork, 0, BALLAST_PAGES, 1).await, 0);
    }
    // The device is in use now, and that is what the user is told.
    let plan = plan(two.nic());
    let run_dir = plan.run_dir.clone();
    let error = rig.driver.restore(plan).await.err().unwrap().to_string();
    assert!(error.contains("busy"), "{error}");
    assert!(rig.driver.adopt(&run_dir).await.unwrap().is_none());
    for fork in forks {
        fork.vm.kill().await.unwrap();
    }
}

/// A plan whose memory comes from the pager behind `socket`.
pub(crate) fn paged_with(rig: &Rig<'_>, image: &Image, socket: &Path) -> RestorePlan {
    RestorePlan {
        memory: MemoryBackend::Pager {
            socket: socket.to_path_buf(),
        },
        ..rig.restore_plan(image, RamUse::Fork, Wake::Running)
    }
}

/// Nobody listens: the restore fails at once, with Firecracker's reason.
async fn absent_pager_is_told(subject: &Firecracker) {
    let rig = Rig::new(subject).await;
    let saved = template(&rig).await;
    let plan = paged_with(&rig, &saved.image, &rig.instance_dir().join("nobody"));
    let run_dir = plan.run_dir.clone();
    match rig.driver.restore(plan).await.err() {
        Some(VmmError::Refused { message, .. }) => {
            assert!(message.contains("UDS"), "{message}");
        }
        other => panic!("{other:?} instead of a refusal"),
    }
    assert!(rig.driver.adopt(&run_dir).await.unwrap().is_none());
}

/// Somebody takes the machine's memory and never serves a page: the load would wait for ever.
async fn silent_pager_is_given_up(subject: &Firecracker) {
    let rig = Rig::new(subject).await;
    let saved = template(&rig).await;
    let socket = rig.instance_dir().join("silent");
    let silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let config = FirecrackerConfig {
        start_deadline: Duration::from_secs(2),
        ..subject.real()
    };
    let hasty = FirecrackerDriver::new(config, Arc::default())
        .await
        .unwrap();
    let plan = paged_with(&rig, &saved.image, &socket);
    let run_dir = plan.run_dir.clone();
    let error = hasty.restore(plan).await.err();
    assert!(matches!(error, Some(VmmError::Timeout { .. })), "{error:?}");
    assert!(hasty.adopt(&run_dir).await.unwrap().is_none());
    drop(silent);
}
