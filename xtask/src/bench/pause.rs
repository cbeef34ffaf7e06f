//! How long a running source stands still while it is forked.

use anyhow::Context;
use api::instances::ForkRequest;

use super::http::Http;
use super::lab::{Lab, named};
use super::report::Report;

/// ms.
const BOUND_MS: f64 = 30.0;

/// Forks a fork with few changed pages, again and again.
pub(super) async fn measure(lab: &Lab<'_>, report: &mut Report) -> anyhow::Result<()> {
    println!("fork of a running machine");
    let source = lab.fork("runner").await?;
    lab.exec(&source.id, &["true"]).await?;
    let mut http = Http::connect(&lab.daemon.socket()).await?;
    let mut pauses = Vec::new();
    for _ in 0..lab.samples(10, 4) {
        let before = paused_seconds(&mut http).await?;
        let request = ForkRequest {
            from_running: Some(true),
            ..named("snap")
        };
        let fork = lab.client.fork(&source.id, &request).await?;
        let after = paused_seconds(&mut http).await?;
        pauses.push((after - before) * 1e3);
        lab.remove(&fork.id).await?;
    }
    lab.remove(&source.id).await?;
    report.at_most("source paused by from_running", "ms", &pauses, BOUND_MS);
    Ok(())
}

/// Sum of all pauses so far, as the daemon tells; 0 before the first.
async fn paused_seconds(http: &mut Http) -> anyhow::Result<f64> {
    let text = String::from_utf8(http.get("/metrics").await?)?;
    let line = text.lines().find(|line| {
        line.starts_with("coppice_phase_seconds_sum") && line.contains("\"source_paused\"")
    });
    line.map_or(Ok(0.0), |line| {
        let (_, figure) = line.rsplit_once(' ').context("a metric without figure")?;
        Ok(figure.parse()?)
    })
}
