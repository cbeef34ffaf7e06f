//! The way back: forks removed, the template an ordinary machine again, nothing left.

use std::time::Duration;

use api::instances::{Instance, InstanceState};

use super::SOURCE;
use super::cli::Cli;
use super::counter::Counter;
use super::forks;
use super::screen::Screen;
use crate::private_daemon::PrivateDaemon;

/// Longest that the source can have counted between our last look and its sleep, and between its
/// wake and our first look.
const AWAKE: Duration = Duration::from_secs(60);

/// Without forks the lock is gone.
pub(super) async fn unlocked(cli: &Cli<'_>, screen: &mut Screen) -> anyhow::Result<()> {
    screen.chapter("Remove the forks");
    let names = forks::names();
    let mut words = vec!["rm", "--force"];
    words.extend(names.iter().map(String::as_str));
    cli.shown(screen, &words).await?;
    let left: Vec<Instance> = cli.json(&["ps", "--all"]).await?;
    screen.check("only the template is left", left.len() == 1)?;
    let stats = cli.client.stats(&left[0].id).await?;
    let warm = stats.template.map_or(0, |template| template.warm_forks);
    screen.check(
        format_args!("no VMM is left but {warm} kept warm for the next fork"),
        cli.vmms().len() as u64 == warm,
    )?;
    let template = cli.inspect(SOURCE).await?;
    screen.check(
        "it is locked no more",
        template.fork_count == 0 && !template.mem_locked,
    )
}

/// The source wakes where it fell asleep, whatever its forks did.
pub(super) async fn goes_on(
    cli: &Cli<'_>,
    screen: &mut Screen,
    before: &Counter,
) -> anyhow::Result<()> {
    screen.chapter("Demote and restore the source");
    cli.shown(screen, &["demote", SOURCE]).await?;
    let state = cli.inspect(SOURCE).await?.state;
    screen.check(
        format_args!("it is in {state}"),
        state == InstanceState::Standby,
    )?;
    screen.check("no VMM is left", cli.vmms().is_empty())?;
    cli.shown(screen, &["restore", SOURCE]).await?;
    let state = cli.inspect(SOURCE).await?.state;
    screen.check(
        format_args!("it is {state}"),
        state == InstanceState::Running,
    )?;
    let now = Counter::of(cli, SOURCE).await?;
    let later = Counter::beyond(cli, SOURCE, now.count).await?;
    screen.check(
        format_args!(
            "its counter goes on from {}: {} … {}",
            before.count, now.count, later.count
        ),
        now.continues(*before, AWAKE) && later.pid == before.pid,
    )
}

/// The last machine goes.
pub(super) async fn removed(cli: &Cli<'_>, screen: &mut Screen) -> anyhow::Result<()> {
    screen.chapter("Clean up");
    cli.shown(screen, &["rm", SOURCE]).await?;
    let left: Vec<Instance> = cli.json(&["ps", "--all"]).await?;
    screen.check("no machine is left", left.is_empty())?;
    screen.check("no VMM is left", cli.vmms().is_empty())
}

/// After the daemon, its directory.
pub(super) fn cleaned_up(daemon: PrivateDaemon, screen: &mut Screen) -> anyhow::Result<()> {
    let home = daemon.home().to_owned();
    let vmms = daemon.vmms();
    drop(daemon);
    screen.check("no process is left", vmms.is_empty())?;
    screen.check("the temporary directory is gone", !home.exists())
}
