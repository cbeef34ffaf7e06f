//! Sixteen forks in one call, until all have answered a command.

use std::time::Instant;

use futures::future::try_join_all;

use super::by_hand::{HandMade, Recipe};
use super::lab::Lab;
use super::report::Report;
use super::samples::ms;

/// Forks in one call.
const FORKS: u32 = 16;

/// Against as many QEMUs started by hand at once.
const BOUND: f64 = 1.3;

/// Both ways in turn.
pub(super) async fn measure(lab: &Lab<'_>, report: &mut Report) -> anyhow::Result<()> {
    println!("{FORKS} forks in one call");
    let recipe = Recipe::of(lab)?;
    let (mut ours, mut by_hand) = (Vec::new(), Vec::new());
    for _ in 0..lab.samples(5, 2) {
        by_hand.push(hands(lab, &recipe).await?);
        ours.push(forks(lab).await?);
    }
    report.ratio(
        "16 forks → all answered, by hand",
        "ms",
        &ours,
        &by_hand,
        BOUND,
    );
    Ok(())
}

async fn forks(lab: &Lab<'_>) -> anyhow::Result<f64> {
    let began = Instant::now();
    let forks = lab.forks("many", FORKS).await?;
    try_join_all(forks.iter().map(|fork| lab.exec(&fork.id, &["true"]))).await?;
    let took = ms(began.elapsed());
    lab.remove_all(&forks).await?;
    Ok(took)
}

async fn hands(lab: &Lab<'_>, recipe: &Recipe) -> anyhow::Result<f64> {
    let prepared = (0..FORKS).map(|_| recipe.prepare(lab.daemon.home()));
    let prepared = prepared.collect::<anyhow::Result<Vec<_>>>()?;
    let began = Instant::now();
    let spawned = prepared.into_iter().map(super::by_hand::Prepared::spawn);
    let machines = spawned.collect::<anyhow::Result<Vec<_>>>()?;
    try_join_all(machines.iter().map(HandMade::answer)).await?;
    Ok(ms(began.elapsed()))
}
