//! Specification §7: the daemon is killed right before and right after every step of
//! every operation, killed once more while it mends that, and started again.

use crate::scenarios::{Scenario, scenarios};
use crate::world::{OVERLAYS, RAW, When, World};

/// Steps of a start, about: which of them the second kill takes goes round.
const STEPS_OF_A_START: usize = 9;

/// More steps than any operation has.
const MOST_STEPS: usize = 200;

async fn kill_at_every_step(scenario: Scenario) {
    for step in 0..MOST_STEPS {
        // The steps are the same on both VMMs; they take turns.
        let vmms = if step % 2 == 0 {
            [OVERLAYS, RAW]
        } else {
            [RAW, OVERLAYS]
        };
        for (when, vmm) in [When::Before, When::After].into_iter().zip(vmms) {
            if !kill_at(scenario, vmm, step, when).await {
                assert!(step > 1, "the operation has steps");
                return;
            }
        }
    }
    panic!("an operation without end");
}

/// False if the operation was over before it came to this step.
async fn kill_at(scenario: Scenario, vmm: &'static str, step: usize, when: When) -> bool {
    let mut world = World::on(vmm).await;
    let stage = scenario.stage(&world).await;
    world.gate.stop_at(step, when);
    if stage.ask(&world).await.is_some() {
        // What goes on after the answer may still come to the step.
        tokio::select! {
            () = world.gate.stopped() => {}
            () = world.settle() => {}
        }
    }
    if !world.gate.is_stopped() {
        return false;
    }
    let at = world.gate.taken();
    eprintln!("{scenario:?} on {vmm} killed {when:?} {step}: {at:?}");
    world
        .start_and_kill_daemon(step % STEPS_OF_A_START, when)
        .await;
    world.restart().await;
    let first = world.picture().await;
    let state = stage.check(&world).await;
    world.restart().await;
    assert_eq!(
        world.daemon().swept,
        Default::default(),
        "nothing is left for a second start"
    );
    assert_eq!(
        world.picture().await,
        first,
        "a second start changes nothing"
    );
    stage.check_names(&world).await;
    stage.check_memory(&world, state.as_deref()).await;
    world.delete_everything().await;
    true
}

scenarios!(kill_at_every_step);
