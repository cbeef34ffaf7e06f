//! Images of one machine after another.

use memory::{How, Verified};

use super::rig::{Rig, finish};
use super::subject::Place;
use crate::{RamUse, VmStatus, Wake};

pub(super) async fn standby_restore(rig: &Rig<'_>) {
    let machine = rig.launch().await;
    rig.put(&machine, Place::Ram, "word", "in memory").await;
    rig.put(&machine, Place::Disk, "word", "on disk").await;
    let saved = rig.standby(machine).await;
    saved.image.verify(&Verified::default()).unwrap();
    let plan = rig.restore_plan(&saved.image, RamUse::Own, Wake::Paused);
    let again = rig.try_restore(plan).await.unwrap();
    rig.expect_status(&again, VmStatus::Paused).await;
    again.vm.resume().await.unwrap();
    rig.expect_status(&again, VmStatus::Running).await;
    assert_eq!(rig.get(&again, Place::Ram, "word").await, "in memory");
    assert_eq!(rig.get(&again, Place::Disk, "word").await, "on disk");
    again.vm.kill().await.unwrap();
}

pub(super) async fn capture_and_go_on(rig: &Rig<'_>) {
    let machine = rig.launch().await;
    rig.put(&machine, Place::Ram, "word", "early").await;
    machine.vm.pause().await.unwrap();
    let (mut draft, captured) = rig.capture(&machine).await;
    rig.add_disks(&mut draft, &machine, How::Copy);
    machine.vm.resume().await.unwrap();
    let image = finish(draft, &captured);
    for place in [Place::Ram, Place::Disk] {
        rig.put(&machine, place, "word", "late").await;
    }
    let copy = rig.restore(&image, RamUse::Fork).await;
    assert_eq!(rig.get(&copy, Place::Ram, "word").await, "early");
    assert_eq!(rig.get(&copy, Place::Disk, "word").await, "");
    assert_eq!(rig.get(&machine, Place::Ram, "word").await, "late");
    copy.vm.kill().await.unwrap();
    machine.vm.kill().await.unwrap();
}

pub(super) async fn capture_twice(rig: &Rig<'_>) {
    let machine = rig.launch().await;
    let id = memory::ImageId::random().unwrap();
    let mut draft =
        memory::Draft::create(&machine.dir.join("running"), id, &Verified::default()).unwrap();
    let running = machine.vm.snapshots().unwrap().capture(&mut draft).await;
    assert!(running.is_err(), "a running machine was captured");
    draft.abandon();
    machine.vm.pause().await.unwrap();
    let (draft, _) = rig.capture(&machine).await;
    draft.abandon();
    let id = memory::ImageId::random().unwrap();
    let mut draft =
        memory::Draft::create(&machine.dir.join("second"), id, &Verified::default()).unwrap();
    assert!(
        machine
            .vm
            .snapshots()
            .unwrap()
            .capture(&mut draft)
            .await
            .is_err()
    );
    draft.abandon();
    machine.vm.resume().await.unwrap();
    machine.vm.pause().await.unwrap();
    let (draft, _) = rig.capture(&machine).await;
    draft.abandon();
    machine.vm.kill().await.unwrap();
}

pub(super) async fn chain(rig: &Rig<'_>) {
    let mut machine = rig.launch().await;
    for round in 0..3 {
        let word = format!("round {round}");
        rig.put(&machine, Place::Ram, &format!("r{round}"), &word)
            .await;
        rig.put(&machine, Place::Disk, &format!("d{round}"), &word)
            .await;
        let saved = rig.standby(machine).await;
        machine = rig.restore(&saved.image, RamUse::Own).await;
        for earlier in 0..=round {
            let word = format!("round {earlier}");
            assert_eq!(
                rig.get(&machine, Place::Ram, &format!("r{earlier}")).await,
                word
            );
            assert_eq!(
                rig.get(&machine, Place::Disk, &format!("d{earlier}")).await,
                word
            );
        }
    }
    machine.vm.kill().await.unwrap();
}
