//! One fork: from the request to the first answered command. Measured twice: with nothing prepared and
//! nothing connected, which shows what the product adds to its VMM, and as shipped, with a warm fork ready.

use std::time::{Duration, Instant};

use anyhow::Context;

use super::by_hand::Recipe;
use super::lab::Lab;
use super::report::Report;
use super::samples::ms;

/// Against the same QEMU started by hand.
const BY_HAND_BOUND: f64 = 1.3;

/// Against a cold boot.
const BOOT_BOUND: f64 = 1.0 / 20.0;

/// Forks to one cold boot, which takes as long as many.
const BOOT_EVERY: u32 = 7;

/// For a warm fork to be ready.
const WARM_DEADLINE: Duration = Duration::from_secs(60);

/// Between two looks whether it is.
const TICK: Duration = Duration::from_millis(10);

/// Nothing is prepared: both ways in turn.
pub(super) async fn unprepared(lab: &Lab<'_>, report: &mut Report) -> anyhow::Result<()> {
    println!("one fork to its first exec, nothing prepared");
    let recipe = Recipe::of(lab)?;
    let (mut ours, mut by_hand) = (Vec::new(), Vec::new());
    // The first round warms caches on both sides and does not count.
    for round in 0..=lab.samples(20, 7) {
        // Whoever comes second finds what the first has left: take turns.
        for first in [round % 2 == 0, round % 2 != 0] {
            let (took, samples) = if first {
                (fork(lab).await?, &mut ours)
            } else {
                (hand(lab, &recipe).await?, &mut by_hand)
            };
            if round > 0 {
                samples.push(took);
            }
        }
    }
    report.ratio(
        "unprepared fork → first exec, by hand",
        "ms",
        &ours,
        &by_hand,
        BY_HAND_BOUND,
    );
    Ok(())
}

/// A daemon with its defaults, whose template is not forked faster than warm forks grow; with a cold
/// boot now and then.
pub(super) async fn as_shipped(lab: &Lab<'_>, report: &mut Report) -> anyhow::Result<()> {
    println!("one fork to its first exec, as shipped");
    let (mut ours, mut boots) = (Vec::new(), Vec::new());
    for round in 0..=lab.samples(20, 7) {
        if round % BOOT_EVERY == 0 {
            boots.push(boot(lab).await?);
        }
        wait_for_warmth(lab).await?;
        let took = fork(lab).await?;
        if round > 0 {
            ours.push(took);
        }
    }
    report.ratio(
        "fork → first exec, cold boot",
        "ms",
        &ours,
        &boots,
        BOOT_BOUND,
    );
    Ok(())
}

/// Until the template has a fork ready, which is not made while something is measured.
async fn wait_for_warmth(lab: &Lab<'_>) -> anyhow::Result<()> {
    let ready = async {
        loop {
            let stats = lab.client.stats(&lab.template.id).await?;
            if stats
                .template
                .is_some_and(|template| template.warm_forks > 0)
            {
                return anyhow::Ok(());
            }
            tokio::time::sleep(TICK).await;
        }
    };
    tokio::time::timeout(WARM_DEADLINE, ready)
        .await
        .context("no warm fork")?
}

async fn fork(lab: &Lab<'_>) -> anyhow::Result<f64> {
    let began = Instant::now();
    let instance = lab.fork("one").await?;
    lab.exec(&instance.id, &["true"]).await?;
    let took = ms(began.elapsed());
    lab.remove(&instance.id).await?;
    Ok(took)
}

async fn boot(lab: &Lab<'_>) -> anyhow::Result<f64> {
    let began = Instant::now();
    let instance = lab.boot("cold").await?;
    lab.exec(&instance.id, &["true"]).await?;
    let took = ms(began.elapsed());
    lab.remove(&instance.id).await?;
    Ok(took)
}

async fn hand(lab: &Lab<'_>, recipe: &Recipe) -> anyhow::Result<f64> {
    let prepared = recipe.prepare(lab.daemon.home())?;
    let began = Instant::now();
    let machine = prepared.spawn()?;
    machine.answer().await?;
    Ok(ms(began.elapsed()))
}
