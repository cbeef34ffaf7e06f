//! Machines without images.

use tokio::time::timeout;

use super::rig::{DEADLINE, Rig};
use super::subject::{Ask, Place};
use crate::{ExitReason, VmStatus};

pub(super) async fn launch_answers(rig: &Rig<'_>) {
    let machine = rig.launch().await;
    rig.expect_status(&machine, VmStatus::Running).await;
    rig.put(&machine, Place::Ram, "word", "hello").await;
    assert_eq!(rig.get(&machine, Place::Ram, "word").await, "hello");
    let memory = machine.vm.memory().unwrap().report().await.unwrap();
    assert_eq!(memory.ram_bytes, rig.subject.guest().ram_bytes());
    assert_eq!(
        memory.ram_shared_bytes, 0,
        "a booted machine shares nothing"
    );
    assert!(memory.ram_private_bytes > 0);
    machine.vm.quit().await.unwrap();
    assert!(
        !matches!(machine.vm.exited().await, ExitReason::Signal(_)),
        "it was asked, not killed"
    );
}

pub(super) async fn pause_resume(rig: &Rig<'_>) {
    let machine = rig.launch().await;
    machine.vm.pause().await.unwrap();
    machine.vm.pause().await.unwrap();
    rig.expect_status(&machine, VmStatus::Paused).await;
    let asked = Ask::Put(Place::Ram, "word".into(), "late".into());
    let answer = rig.subject.guest().ask(machine.vm.as_ref(), &asked);
    tokio::pin!(answer);
    let early = timeout(std::time::Duration::from_millis(200), &mut answer).await;
    assert!(early.is_err(), "a paused guest has answered");
    machine.vm.resume().await.unwrap();
    rig.expect_status(&machine, VmStatus::Running).await;
    timeout(DEADLINE, answer).await.unwrap();
    assert_eq!(rig.get(&machine, Place::Ram, "word").await, "late");
    machine.vm.kill().await.unwrap();
}

pub(super) async fn power_off(rig: &Rig<'_>) {
    let machine = rig.launch().await;
    let off = machine.vm.powered_off();
    tokio::pin!(off);
    assert!(
        timeout(std::time::Duration::from_millis(50), &mut off)
            .await
            .is_err()
    );
    rig.subject
        .guest()
        .ask(machine.vm.as_ref(), &Ask::PowerOff)
        .await;
    timeout(DEADLINE, off).await.unwrap();
    rig.expect_status(&machine, VmStatus::Shutdown).await;
    machine.vm.quit().await.unwrap();
    timeout(DEADLINE, machine.vm.exited()).await.unwrap();
}

pub(super) async fn kill_exits(rig: &Rig<'_>) {
    let machine = rig.launch().await;
    let waiting = machine.vm.clone();
    let exited = tokio::spawn(async move { waiting.exited().await });
    machine.vm.kill().await.unwrap();
    assert_eq!(
        timeout(DEADLINE, exited).await.unwrap().unwrap(),
        ExitReason::Signal(9)
    );
    machine.vm.kill().await.unwrap();
    assert!(machine.vm.status().await.is_err());
    assert!(
        rig.driver
            .adopt(&machine.dir.join("run"))
            .await
            .unwrap()
            .is_none()
    );
}

pub(super) async fn adopt(rig: &Rig<'_>) {
    let machine = rig.launch().await;
    rig.put(&machine, Place::Ram, "word", "before").await;
    let process = machine.vm.process();
    drop(machine.vm);
    let driver = rig.subject.driver().await;
    let vm = driver
        .adopt(&machine.dir.join("run"))
        .await
        .unwrap()
        .expect("the machine still runs");
    assert_eq!(vm.process(), process);
    let machine = super::rig::Machine { vm, ..machine };
    rig.expect_status(&machine, VmStatus::Running).await;
    assert_eq!(rig.get(&machine, Place::Ram, "word").await, "before");
    let saved = rig.standby(machine).await;
    let again = rig.restore(&saved.image, crate::RamUse::Own).await;
    assert_eq!(rig.get(&again, Place::Ram, "word").await, "before");
    // An adopted machine that runs on an image still knows it.
    drop(again.vm);
    let driver = rig.subject.driver().await;
    let vm = driver
        .adopt(&again.dir.join("run"))
        .await
        .unwrap()
        .expect("the restored machine runs");
    let again = super::rig::Machine { vm, ..again };
    let saved = rig.standby(again).await;
    rig.expect_diff(&saved.captured, u64::MAX);
}
