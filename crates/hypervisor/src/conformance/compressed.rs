//! Images whose RAM is compressed.

use super::damage::{flip, replace};
use super::rig::Rig;
use super::subject::Place;
use crate::{RamUse, VmmError, Wake};

/// The level of each standby of a machine, none for a plain one: either kind comes to lie on the other.
const LEVELS: [Option<i32>; 3] = [Some(1), None, Some(19)];

pub(super) async fn compressed(rig: &Rig<'_>) {
    let mut machine = rig.launch().await;
    let mut written = 0;
    for (round, level) in LEVELS.into_iter().enumerate() {
        rig.put(&machine, Place::Ram, &format!("word{round}"), "kept")
            .await;
        let saved = rig.standby_at(machine, level).await;
        let stored = saved.image.stored_ram().unwrap();
        assert_eq!(
            stored.layers,
            saved.captured.linked_layers + 1,
            "{stored:?}"
        );
        if stored.layers == 1 {
            written = 0;
        }
        written += usize::from(level.is_some());
        assert_eq!(stored.compressed_layers, written, "{stored:?}");
        if round == 0 {
            assert!(stored.stored_bytes < stored.ram_bytes, "{stored:?}");
            refused_when_damaged(rig, &saved.image).await;
        }
        for ram in [RamUse::Fork, RamUse::Copied] {
            let fork = rig.restore(&saved.image, ram).await;
            has_words(rig, &fork, round).await;
            fork.vm.kill().await.unwrap();
        }
        machine = rig.restore(&saved.image, RamUse::Own).await;
        has_words(rig, &machine, round).await;
    }
    machine.vm.kill().await.unwrap();
}

async fn has_words(rig: &Rig<'_>, machine: &super::Machine, last: usize) {
    for round in 0..=last {
        let word = rig.get(machine, Place::Ram, &format!("word{round}")).await;
        assert_eq!(word, "kept", "of round {round} after {last}");
    }
}

/// Whoever needs all of RAM before the machine starts refuses a damaged chunk by the name of its file.
async fn refused_when_damaged(rig: &Rig<'_>, image: &memory::Image) {
    let name = format!("ram-{}.pages", image.manifest().layers[0].id);
    for ram in [RamUse::Fork, RamUse::Copied, RamUse::Own] {
        let driver = rig.subject.driver().await;
        let plan = rig.restore_plan(image, ram, Wake::Running);
        let run_dir = plan.run_dir.clone();
        replace(&plan.image_dir, &name, flip);
        match driver.restore(plan).await.err() {
            Some(VmmError::Image(cause)) => {
                assert!(cause.to_string().contains(&name), "{cause}");
            }
            other => panic!("{other:?} for a damaged chunk under {ram:?}"),
        }
        assert!(rig.driver.adopt(&run_dir).await.unwrap().is_none());
    }
}
