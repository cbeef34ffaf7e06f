//! Eight machines on one pager. One of them behaves as badly as a guest and a VMM can, and the others do not feel it.

use hypervisor::conformance::{Machine, Rig, Saved};
use memory::PAGE_BYTES;
use pager::Event;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::by_hand::{Balloon, ByHand, Load};
use crate::extra::{big_template, wrong};
use crate::firecracker::Firecracker;
use crate::paged::image_of;
use crate::pagers::{Paged, sees_no_loss, vcpus_wait};
use crate::probe::{BALLAST_PAGES, BIG_PAGES, DEADLINE, FREE_PAGE};

const MACHINES: usize = 8;

/// Rounds of a storm before the guest tells of it.
const ROUNDS: u64 = 8;

/// Pages of a round, each of which the pager is told of.
const REMOVED: u64 = 64;

/// Machines that stand still until they are wanted.
async fn eight(rig: &Rig<'_>, paged: &Paged, saved: &Saved) -> Vec<Machine> {
    let mut forks = Vec::new();
    for nth in 0..MACHINES {
        let fork = paged.fork(rig, saved, &format!("fork{nth}")).await;
        fork.vm.pause().await.unwrap();
        forks.push(fork);
    }
    forks
}

/// They read everything at once, and end.
async fn all_read(forks: Vec<Machine>) {
    let mut readers = JoinSet::new();
    for fork in forks {
        readers.spawn(async move {
            fork.vm.resume().await.unwrap();
            let bad = wrong(&fork, 0, BIG_PAGES, 1).await;
            fork.vm.kill().await.unwrap();
            bad
        });
    }
    let bad = readers.join_all().await;
    assert!(bad.iter().all(|bad| *bad == 0), "{bad:?}");
}

/// One is killed while it waits for pages, and before it gets them.
pub(crate) async fn one_of_eight_ends_alone(subject: &Firecracker) {
    let rig = Rig::new(subject).await;
    let saved = big_template(&rig).await;
    let paged = Paged::start(&rig, &saved.image).await;
    let mut forks = eight(&rig, &paged, &saved).await;
    let lost = forks.pop().unwrap();
    lost.vm.resume().await.unwrap();
    // It has what it needs to read on.
    assert_eq!(wrong(&lost, 0, 16, 1).await, 0);
    let mut stream = lost.vm.dial(DEADLINE).await.unwrap();
    let pagers = paged.stop().await;
    let command = format!("wrong {FREE_PAGE} {BIG_PAGES} 1\n");
    stream.write_all(command.as_bytes()).await.unwrap();
    vcpus_wait(&lost, 1).await;
    lost.vm.kill().await.unwrap();
    pagers.go_on();
    all_read(forks).await;
    for _ in 0..MACHINES {
        paged.event(|event| matches!(event, Event::Gone(_)).then_some(()));
    }
    sees_no_loss(&paged);
}

/// One's VMM is stopped while it waits for pages: it takes nothing, tells nothing and does not end. When it may, it goes on.
pub(crate) async fn one_of_eight_stands_still(subject: &Firecracker) {
    let rig = Rig::new(subject).await;
    let saved = big_template(&rig).await;
    let paged = Paged::start(&rig, &saved.image).await;
    let mut forks = eight(&rig, &paged, &saved).await;
    let still = forks.pop().unwrap();
    still.vm.resume().await.unwrap();
    assert_eq!(wrong(&still, 0, 16, 1).await, 0);
    let pid = Pid::from_raw(still.vm.process().pid).unwrap();
    let pagers = paged.stop().await;
    let reading = wrong(&still, 0, BIG_PAGES, 1);
    tokio::pin!(reading);
    tokio::select! {
        bad = &mut reading => panic!("{bad}: it has read what nobody has given it"),
        () = vcpus_wait(&still, 1) => kill_process(pid, Signal::STOP).unwrap(),
    }
    pagers.go_on();
    all_read(forks).await;
    kill_process(pid, Signal::CONT).unwrap();
    assert_eq!(reading.await, 0);
    still.vm.kill().await.unwrap();
    sees_no_loss(&paged);
}

/// One gives pages back and takes them again without pause, while its second processor reads the same pages at random:
/// the pager is told of each of them, and asked for them at the same time.
pub(crate) async fn one_of_eight_storms(subject: &Firecracker) {
    let rig = Rig::new(subject).await;
    let mut vm = ByHand::boot(&rig, subject, Balloon::Present);
    vm.ask(&format!("tag {FREE_PAGE} {BALLAST_PAGES} 1"));
    vm.set("Paused");
    let (state, ram) = vm.save("Diff", "saved");
    let image = image_of(&rig, &state, &ram);
    let paged = Paged::start(&rig, &image).await;
    let mut forks = Vec::new();
    for nth in 0..MACHINES {
        let (socket, attached) = paged.await_vm(&format!("fork{nth}"), None, false);
        let load = Load {
            state: &image.state_path(),
            memory: ("Uffd", &socket),
            resume: false,
        };
        forks.push(ByHand::load(&rig, subject, &vm.dir.join("disk"), &load));
        attached.await.unwrap();
    }
    let mut storming = forks.remove(0);
    let before = paged.stats("fork0").await.removed_bytes;
    let half = BALLAST_PAGES / 2;
    let stormy = format!("{} {half}", FREE_PAGE + half);
    storming.set("Resumed");
    storming.ask(&format!("roam {stormy}"));
    let rounds = tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let readers: Vec<_> = forks
                .iter_mut()
                .map(|fork| {
                    scope.spawn(|| {
                        fork.set("Resumed");
                        let bad = fork.number(&format!("wrong {FREE_PAGE} {BALLAST_PAGES} 1"));
                        fork.set("Paused");
                        bad
                    })
                })
                .collect();
            let mut rounds = 0;
            while rounds == 0 || readers.iter().any(|reader| !reader.is_finished()) {
                assert_eq!(storming.number(&format!("storm {stormy} {ROUNDS}")), 0);
                rounds += ROUNDS;
            }
            for reader in readers {
                assert_eq!(reader.join().unwrap(), 0);
            }
            rounds
        })
    });
    assert!(storming.number("roamed") > 0);
    let removed = paged.stats("fork0").await.removed_bytes - before;
    assert_eq!(removed, rounds * REMOVED * PAGE_BYTES as u64);
    assert_eq!(storming.number(&format!("wrong {FREE_PAGE} {half} 1")), 0);
    sees_no_loss(&paged);
}
