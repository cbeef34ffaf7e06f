//! Many machines from one image.

use memory::Verified;

use super::rig::{Rig, Saved};
use super::subject::Place;
use crate::RamUse;

/// Forks that run at once.
const FORKS: usize = 4;

async fn template(rig: &Rig<'_>) -> Saved {
    let machine = rig.launch().await;
    rig.put(&machine, Place::Ram, "from", "template").await;
    rig.put(&machine, Place::Disk, "from", "template").await;
    rig.standby(machine).await
}

pub(super) async fn isolated(rig: &Rig<'_>) {
    let saved = template(rig).await;
    let hold = rig
        .driver
        .templates()
        .unwrap()
        .hold(saved.image.dir())
        .await
        .unwrap();
    assert!(hold.resident_bytes() > 0);
    let forks = futures_join((0..FORKS).map(|_| rig.restore(&saved.image, RamUse::Fork))).await;
    for (number, fork) in forks.iter().enumerate() {
        let word = format!("fork {number}");
        for place in [Place::Ram, Place::Disk] {
            rig.put(fork, place, "own", &word).await;
            rig.put(fork, place, &format!("only{number}"), &word).await;
        }
    }
    for (number, fork) in forks.iter().enumerate() {
        for place in [Place::Ram, Place::Disk] {
            assert_eq!(rig.get(fork, place, "own").await, format!("fork {number}"));
            assert_eq!(rig.get(fork, place, "from").await, "template");
            for other in (0..FORKS).filter(|other| *other != number) {
                assert_eq!(
                    rig.get(fork, place, &format!("only{other}")).await,
                    "",
                    "fork {number} sees {other}"
                );
            }
        }
        let memory = fork.vm.memory().unwrap().report().await.unwrap();
        assert!(
            memory.ram_shared_bytes > 0,
            "a fork shares the template's memory"
        );
    }
    for fork in &forks {
        fork.vm.kill().await.unwrap();
    }
    // Without what this process remembers of the files: every byte is read.
    saved.image.verify(&Verified::default()).unwrap();
}

pub(super) async fn diff_standby(rig: &Rig<'_>) {
    let saved = template(rig).await;
    let fork = rig.restore(&saved.image, RamUse::Fork).await;
    rig.put(&fork, Place::Ram, "own", "of the fork").await;
    let diff = rig.standby(fork).await;
    let most = rig.subject.guest().most_diff_bytes() / memory::PAGE_BYTES as u64;
    rig.expect_diff(&diff.captured, most);
    // The template's directory goes; the fork's image must not need it.
    saved.image.remove().unwrap();
    let mut again = rig.restore(&diff.image, RamUse::Own).await;
    for _ in 0..2 {
        assert_eq!(rig.get(&again, Place::Ram, "from").await, "template");
        assert_eq!(rig.get(&again, Place::Ram, "own").await, "of the fork");
        // A fork of the fork, while the fork itself goes on.
        let nested = rig.restore(&diff.image, RamUse::Fork).await;
        assert_eq!(rig.get(&nested, Place::Disk, "from").await, "template");
        assert_eq!(rig.get(&nested, Place::Ram, "own").await, "of the fork");
        nested.vm.kill().await.unwrap();
        let saved = rig.standby(again).await;
        again = rig.restore(&saved.image, RamUse::Own).await;
    }
    again.vm.kill().await.unwrap();
}

pub(super) async fn copied(rig: &Rig<'_>) {
    let saved = template(rig).await;
    let fork = rig.restore(&saved.image, RamUse::Copied).await;
    assert_eq!(rig.get(&fork, Place::Ram, "from").await, "template");
    rig.put(&fork, Place::Ram, "own", "copy").await;
    let memory = fork.vm.memory().unwrap().report().await.unwrap();
    assert_eq!(memory.ram_shared_bytes, 0);
    let full = rig.standby(fork).await;
    assert_eq!(
        full.captured.linked_layers, 0,
        "it has no image to differ from"
    );
    let again = rig.restore(&full.image, RamUse::Fork).await;
    assert_eq!(rig.get(&again, Place::Ram, "own").await, "copy");
    again.vm.kill().await.unwrap();
}

/// Runs futures of one task at once.
async fn futures_join<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut waiting: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, done) in &mut waiting {
            if done.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *done = Some(value);
            }
        }
        if waiting.iter().all(|(_, done)| done.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    waiting.into_iter().filter_map(|(_, done)| done).collect()
}
