//! The API with a thousand instances on record.

use std::time::Instant;

use anyhow::{Context, ensure};
use api::instances::{ForkRequest, ForkTarget};

use super::http::Http;
use super::lab::{Lab, named};
use super::report::Report;
use super::samples::ms;

/// Instances on record.
const RECORDS: u32 = 1000;

/// One of them, ms.
const GET_BOUND_MS: f64 = 2.0;

/// All of them, ms.
const LIST_BOUND_MS: f64 = 30.0;

/// Gets and lists. Comes last: the records stay.
pub(super) async fn measure(lab: &Lab<'_>, report: &mut Report) -> anyhow::Result<()> {
    println!("{RECORDS} instances on record");
    let source = lab.boot("stopped").await?;
    lab.client.stop(&source.id).await?;
    let request = ForkRequest {
        count: Some(RECORDS),
        target_state: Some(ForkTarget::Stopped),
        ..named("record")
    };
    let began = Instant::now();
    let made = lab.client.fork_many(&source.id, &request).await?;
    println!("    made in {:.1} s", began.elapsed().as_secs_f64());
    let ids = made
        .forks
        .into_iter()
        .filter_map(|fork| Some(fork.instance?.id));
    let ids: Vec<_> = ids.collect();
    ensure!(
        ids.len() == usize::try_from(RECORDS)?,
        "only {} forks were made",
        ids.len()
    );

    let mut http = Http::connect(&lab.daemon.socket()).await?;
    let mut gets = Vec::new();
    // A step that meets all of them in no order of theirs.
    let picks = ids.iter().cycle().step_by(37);
    for id in picks.take(usize::try_from(lab.samples(500, 200))?) {
        let path = format!("/instances/{id}");
        let began = Instant::now();
        http.get(&path).await?;
        gets.push(ms(began.elapsed()));
    }
    let mut lists = Vec::new();
    for _ in 0..lab.samples(30, 10) {
        let began = Instant::now();
        let body = http.get("/instances").await?;
        lists.push(ms(began.elapsed()));
        let all: Vec<serde::de::IgnoredAny> = serde_json::from_slice(&body).context("list")?;
        ensure!(all.len() >= ids.len(), "the list is too short");
    }
    report.at_most("GET one of 1,000 instances", "ms", &gets, GET_BOUND_MS);
    report.at_most("list 1,000 instances", "ms", &lists, LIST_BOUND_MS);
    Ok(())
}
