//! Pages that forks touch first.

use std::time::Duration;

use memory::{PAGE_BYTES, Run, page_count};

use super::rig::{DEADLINE, Machine, Rig};
use super::subject::Place;
use crate::{MappedRam, MemoryUse, RamUse, VmmError, Wake};

fn ram(machine: &Machine) -> &dyn MappedRam {
    machine.vm.mapped_ram().unwrap()
}

/// Whether all of `wanted` is in `runs`, which are ordered and disjoint.
fn covers(runs: &[Run], wanted: &[Run]) -> bool {
    wanted.iter().all(|wanted| {
        let mut around = runs.iter();
        around.any(|run| run.first <= wanted.first && wanted.end() <= run.end())
    })
}

pub(super) async fn pages(rig: &Rig<'_>) {
    let booted = rig.launch().await;
    rig.put(&booted, Place::Ram, "from", "template").await;
    assert!(booted.vm.mapped_ram().is_none(), "it maps no image");
    let saved = rig.standby(booted).await;
    // Its pages stay loaded for as long as it lives.
    let watched = rig.restore(&saved.image, RamUse::Fork).await;
    assert_eq!(rig.get(&watched, Place::Ram, "from").await, "template");
    let touched = ram(&watched).touched().await.unwrap();
    let all = rig.subject.guest().ram_bytes() / PAGE_BYTES as u64;
    assert!(page_count(&touched) > 0, "it has answered");
    assert!(touched.last().unwrap().end() <= all);
    let follow = |pair: &[Run]| pair[0].end() < pair[1].first;
    assert!(touched.windows(2).all(follow), "{touched:?}");

    let plan = rig.restore_plan(&saved.image, RamUse::Fork, Wake::Paused);
    let fork = rig.try_restore(plan).await.unwrap();
    let report = async || fork.vm.memory().unwrap().report().await.unwrap();
    let (before, had) = (report().await, ram(&fork).touched().await.unwrap());
    assert!(!covers(&had, &touched), "it has not run");
    let outside = Run {
        first: all,
        count: 5,
    };
    let mut hot = touched.clone();
    hot.reverse();
    hot.push(outside);
    let none = ram(&fork).enter(hot.clone(), Duration::ZERO).await.unwrap();
    assert_eq!(none, 0, "there was no time");
    let entered = ram(&fork).enter(hot.clone(), DEADLINE).await.unwrap();
    assert!((1..=page_count(&touched)).contains(&entered), "{entered}");
    assert!(covers(&ram(&fork).touched().await.unwrap(), &touched));
    assert_eq!(ram(&fork).enter(hot, DEADLINE).await.unwrap(), 0);
    let after = report().await;
    let entered = entered * PAGE_BYTES as u64;
    // A VMM that has just loaded its state may still write a few pages itself.
    let own = after.ram_private_bytes - before.ram_private_bytes;
    assert!(own < entered, "{own} of {entered} bytes were copied");
    let resident = |memory: &MemoryUse| memory.ram_shared_bytes + memory.ram_private_bytes;
    assert!(resident(&after) >= resident(&before) + entered);

    fork.vm.resume().await.unwrap();
    assert_eq!(rig.get(&fork, Place::Ram, "from").await, "template");
    rig.put(&fork, Place::Ram, "from", "fork").await;
    assert_eq!(rig.get(&watched, Place::Ram, "from").await, "template");
    fork.vm.kill().await.unwrap();
    let ended = ram(&fork).touched().await;
    assert!(matches!(ended, Err(VmmError::Exited { .. })), "{ended:?}");
    watched.vm.kill().await.unwrap();
}
