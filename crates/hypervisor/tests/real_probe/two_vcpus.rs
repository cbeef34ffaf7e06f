//! Machines of two processors that both work: the second one is started by the guest, and it is part of every image.

use hypervisor::RamUse;
use hypervisor::conformance::{Machine, Rig, Subject};
use tokio::time::timeout;

use crate::extra::{tag, template, wrong};
use crate::firecracker::Firecracker;
use crate::pagers::{Paged, vcpus_wait};
use crate::probe::{BALLAST_PAGES, DEADLINE, FREE_PAGE, line, number};

/// Has the second processor read at random.
async fn roam(machine: &Machine) {
    let command = format!("roam {FREE_PAGE} {BALLAST_PAGES}");
    line(machine.vm.as_ref(), &command).await;
}

/// Waits until it has read more than `pages`; how many it has.
async fn roams_beyond(machine: &Machine, pages: u64) -> u64 {
    let reached = async {
        loop {
            let roamed = number(machine.vm.as_ref(), "roamed").await;
            if roamed > pages {
                return roamed;
            }
        }
    };
    timeout(DEADLINE, reached)
        .await
        .expect("the second one stands still")
}

/// Both go on where they were, in forks and in what forks have saved. Each image was taken amid what the second one did.
pub(crate) async fn both_go_on(subject: &dyn Subject) {
    let rig = Rig::new(subject).await;
    let machine = rig.launch().await;
    roam(&machine).await;
    let roamed = roams_beyond(&machine, 0).await;
    let saved = rig.standby(machine).await;
    let mut forks = Vec::new();
    for seed in [2, 3] {
        let fork = rig.restore(&saved.image, RamUse::Fork).await;
        let roamed = roams_beyond(&fork, roamed).await;
        // It is given other work, and goes back to what it did.
        tag(&fork, 0, 100, seed).await;
        roam(&fork).await;
        roams_beyond(&fork, roamed).await;
        forks.push((seed, fork));
    }
    for (seed, fork) in forks {
        let roamed = roams_beyond(&fork, 0).await;
        let saved = rig.standby(fork).await;
        let again = rig.restore(&saved.image, RamUse::Own).await;
        roams_beyond(&again, roamed).await;
        assert_eq!(wrong(&again, 0, 100, seed).await, 0);
        assert_eq!(wrong(&again, 100, BALLAST_PAGES - 100, 1).await, 0);
        again.vm.kill().await.unwrap();
    }
}

/// Both wait for pages at the same time, and both get theirs.
pub(crate) async fn faults_of_both_are_in_flight(subject: &Firecracker) {
    let rig = Rig::new(subject).await;
    let saved = template(&rig).await;
    let paged = Paged::start(&rig, &saved.image).await;
    let fork = paged.fork(&rig, &saved, "fork").await;
    // Both have what they need to read on.
    assert_eq!(wrong(&fork, 0, 16, 1).await, 0);
    let pagers = paged.stop().await;
    let reading = wrong(&fork, 0, BALLAST_PAGES, 1);
    tokio::pin!(reading);
    tokio::select! {
        bad = &mut reading => panic!("{bad}: it has read what nobody has given it"),
        () = vcpus_wait(&fork, 2) => {}
    }
    pagers.go_on();
    assert_eq!(reading.await, 0);
    fork.vm.kill().await.unwrap();
}
