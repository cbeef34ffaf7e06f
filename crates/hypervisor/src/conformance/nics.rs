//! Machines with a network card.

use super::rig::{Machine, Rig};
use super::subject::Place;
use crate::{Nic, RamUse, RestorePlan, VmmError, Wake};

pub(super) async fn must_fit(rig: &Rig<'_>) {
    let Some(nic) = rig.subject.guest().nic() else {
        println!("  skipped: there is no network to put a machine into");
        return;
    };
    let connected = launch(rig, &nic).await;
    rig.put(&connected, Place::Ram, "word", "connected").await;
    let saved = rig.standby(connected).await;
    let alone = rig.launch().await;
    let saved_alone = rig.standby(alone).await;

    let other = Nic {
        mac: [2, 9, 9, 9, 9, 9],
        ..nic.clone()
    };
    for (image, planned) in [
        (&saved.image, None),
        (&saved.image, Some(other)),
        (&saved_alone.image, Some(nic.clone())),
    ] {
        let plan = RestorePlan {
            nic: planned.clone(),
            ..rig.restore_plan(image, RamUse::Fork, Wake::Running)
        };
        let run_dir = plan.run_dir.clone();
        match rig.driver.restore(plan).await.err() {
            Some(VmmError::Mismatch { field: "nic", .. }) => {}
            other => panic!("{other:?} instead of a mismatch of {planned:?}"),
        }
        assert!(rig.driver.adopt(&run_dir).await.unwrap().is_none());
    }

    // The same again, and as a fork of the fork.
    let mut image = saved.image;
    for ram in [RamUse::Fork, RamUse::Own] {
        let plan = RestorePlan {
            nic: Some(nic.clone()),
            ..rig.restore_plan(&image, ram, Wake::Running)
        };
        let machine = rig.try_restore(plan).await.unwrap();
        assert_eq!(rig.get(&machine, Place::Ram, "word").await, "connected");
        image = rig.standby(machine).await.image;
    }
}

async fn launch(rig: &Rig<'_>, nic: &Nic) -> Machine {
    let mut plan = rig.launch_plan();
    plan.nic = Some(nic.clone());
    rig.start(plan).await
}
