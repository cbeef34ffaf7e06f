//! Eight forks of one template: each goes on where the template stopped, and each is itself.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use api::instances::{Instance, InstanceState};
use futures::future::try_join_all;

use super::cli::Cli;
use super::counter::{Counter, LEAP, READ};
use super::screen::Screen;
use super::{FORK, FORKS, SOURCE};
use crate::table;

/// How far a fork's clock may be from ours.
const CLOCK_TOLERANCE_SECONDS: u64 = 2;

/// What a fork says about itself.
struct Fork {
    name: String,
    hostname: String,
    machine_id: String,
    random: String,
    clock_off_seconds: u64,
    counter: Counter,
}

/// Names of all forks.
pub(super) fn names() -> Vec<String> {
    (1..=FORKS)
        .map(|number| format!("{FORK}-{number}"))
        .collect()
}

/// One call, eight machines.
pub(super) async fn made(cli: &Cli<'_>, screen: &mut Screen) -> anyhow::Result<()> {
    screen.chapter("Fork it eight times in one call");
    let began = Instant::now();
    let count = FORKS.to_string();
    cli.shown(screen, &["fork", SOURCE, FORK, "--count", &count])
        .await?;
    let took = began.elapsed().as_secs_f64();
    let template = cli.inspect(SOURCE).await?;
    let names = names();
    let forks = names.iter().map(|name| cli.inspect(name));
    let forks: Vec<Instance> = try_join_all(forks).await?;
    let running = forks
        .iter()
        .filter(|fork| fork.state == InstanceState::Running);
    screen.check(
        format_args!("{FORKS} forks run after {took:.2} s"),
        running.count() == forks.len(),
    )?;
    let parent = Some(template.id.clone());
    screen.check(
        "each has the template as its parent and shares its memory",
        forks.iter().all(|fork| {
            fork.fork_of_template == parent
                && fork.memory.mode == api::instances::MemoryMode::Shared
        }),
    )?;
    screen.check(
        "the template counts them and is locked",
        i64::from(FORKS) == i64::try_from(template.fork_count)? && template.mem_locked,
    )
}

/// Each continues the counter and has a name, id, randomness and clock of its own.
pub(super) async fn themselves(
    cli: &Cli<'_>,
    screen: &mut Screen,
    before: &Counter,
    counted_at: Instant,
) -> anyhow::Result<Vec<Counter>> {
    screen.chapter("Each goes on counting, and each is its own machine");
    let script = format!(
        "hostname; cat /etc/machine-id; head -c 16 /dev/urandom | od -An -tx1 | tr -d \" \\n\"; \
         echo; date +%s; {READ}"
    );
    screen.command(&["coppice", "exec", "fork-1", "--", "sh", "-c", &script]);
    screen.output("… and the same in the seven others:");
    let names = names();
    let forks = try_join_all(names.iter().map(|name| ask(cli, name, &script))).await?;
    let later = names.iter().zip(&forks);
    let later = later.map(|(name, fork)| Counter::beyond(cli, name, fork.counter.count));
    let later = try_join_all(later).await?;

    let heads = [
        "FORK",
        "HOSTNAME",
        "MACHINE ID",
        "RANDOM BYTES",
        "CLOCK OFF",
        "PROCESS",
        "COUNT",
    ];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(
        forks
            .iter()
            .zip(&later)
            .map(|(fork, later)| row(fork, *later)),
    );
    screen.output(&table::aligned(&rows));

    let ago = counted_at.elapsed();
    screen.check(
        format_args!(
            "all are process {}, gone on counting from {}",
            before.pid, before.count
        ),
        forks
            .iter()
            .all(|fork| fork.counter.continues(*before, ago)),
    )?;
    screen.check(
        "all counters advance",
        forks
            .iter()
            .zip(&later)
            .all(|(fork, later)| later.count > fork.counter.count),
    )?;
    own_identity(screen, &forks)?;
    Ok(later)
}

fn own_identity(screen: &mut Screen, forks: &[Fork]) -> anyhow::Result<()> {
    screen.check(
        "each has its own hostname",
        forks.iter().all(|fork| fork.hostname == fork.name),
    )?;
    let distinct = |of: fn(&Fork) -> &String| {
        let all: BTreeSet<_> = forks
            .iter()
            .map(of)
            .filter(|text| text.len() == 32)
            .collect();
        all.len() == forks.len()
    };
    screen.check(
        "each has its own machine id",
        distinct(|fork| &fork.machine_id),
    )?;
    screen.check(
        "each has its own random bytes",
        distinct(|fork| &fork.random),
    )?;
    screen.check(
        format_args!("each has the right time, to {CLOCK_TOLERANCE_SECONDS} s"),
        forks
            .iter()
            .all(|fork| fork.clock_off_seconds <= CLOCK_TOLERANCE_SECONDS),
    )
}

/// What happens in one does not happen in the others.
pub(super) async fn apart(
    cli: &Cli<'_>,
    screen: &mut Screen,
    now: &[Counter],
) -> anyhow::Result<()> {
    screen.chapter("What one does is not seen by the others");
    let pid = now.first().context("no counter")?.pid;
    let leap = format!("kill -USR1 {pid}; echo mine > /mine");
    cli.shown(screen, &["exec", "fork-3", "--", "sh", "-c", &leap])
        .await?;
    let leapt = Counter::beyond(cli, "fork-3", LEAP).await?;
    screen.check(
        format_args!("fork-3 is at {}", leapt.count),
        leapt.count > LEAP,
    )?;
    for (name, earlier) in names()
        .iter()
        .zip(now)
        .filter(|(name, _)| *name != "fork-3")
    {
        let counter = Counter::beyond(cli, name, earlier.count).await?;
        let look = ["exec", name, "--", "sh", "-c", "ls /mine 2>&1 || true"];
        let file = cli.quiet(&look).await?;
        screen.check(
            format_args!("{name} is at {}, and has no /mine", counter.count),
            counter.count < LEAP && file.contains("No such file"),
        )?;
    }
    Ok(())
}

async fn ask(cli: &Cli<'_>, name: &str, script: &str) -> anyhow::Result<Fork> {
    let earliest = host_clock()?;
    let text = cli.quiet(&["exec", name, "--", "sh", "-c", script]).await?;
    let latest = host_clock()?;
    let mut lines = text.lines();
    let mut line = || {
        lines
            .next()
            .with_context(|| format!("{name} says too little"))
    };
    let (hostname, machine_id, random) = (line()?, line()?, line()?);
    let clock: u64 = line()?.parse().context("clock")?;
    let off = earliest
        .saturating_sub(clock)
        .max(clock.saturating_sub(latest));
    Ok(Fork {
        name: name.to_owned(),
        hostname: hostname.to_owned(),
        machine_id: machine_id.to_owned(),
        random: random.to_owned(),
        clock_off_seconds: off,
        counter: Counter::parse(line()?)?,
    })
}

fn row(fork: &Fork, later: Counter) -> Vec<String> {
    vec![
        fork.name.clone(),
        fork.hostname.clone(),
        fork.machine_id.clone(),
        fork.random.clone(),
        format!("{} s", fork.clock_off_seconds),
        fork.counter.pid.to_string(),
        format!("{} … {}", fork.counter.count, later.count),
    ]
}

fn host_clock() -> anyhow::Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(now.unwrap_or(Duration::ZERO).as_secs())
}
