//! From an image to a template.

use api::instances::InstanceState;

use super::SOURCE;
use super::cli::Cli;
use super::counter::{self, Counter};
use super::screen::Screen;
use crate::private_daemon::Vmm;

const IMAGE: &str = "coppice-busybox";

/// The built-in image goes in as any other.
pub(super) async fn image(cli: &Cli<'_>, screen: &mut Screen, archive: &str) -> anyhow::Result<()> {
    screen.chapter("Import an OCI image");
    cli.shown(screen, &["image", "import", archive]).await?;
    let listed = cli.shown(screen, &["image", "ls"]).await?;
    screen.check("the image is listed", listed.contains(IMAGE))
}

/// A machine, and a command in it.
pub(super) async fn boot(cli: &Cli<'_>, screen: &mut Screen) -> anyhow::Result<()> {
    screen.chapter("Boot a microVM from it");
    let run = [
        "run", IMAGE, "--name", SOURCE, "--memory", "256MB", "--cpus", "1",
    ];
    cli.shown(screen, &run).await?;
    let state = cli.inspect(SOURCE).await?.state;
    screen.check(
        format_args!("it is {state}"),
        state == InstanceState::Running,
    )?;
    let kernel = cli.shown(screen, &["exec", SOURCE, "uname", "-sr"]).await?;
    screen.check(
        "a command ran in a Linux of its own",
        kernel.starts_with("Linux "),
    )
}

/// Starts the counter and gives its last look before sleep.
pub(super) async fn count(cli: &Cli<'_>, screen: &mut Screen) -> anyhow::Result<Counter> {
    screen.chapter("Start a process that holds its state in memory");
    // setsid leaves it running when the command has ended.
    let start = ["exec", SOURCE, "--", "setsid", "sh", "-c", counter::PROGRAM];
    cli.shown(screen, &start).await?;
    let first = Counter::beyond(cli, SOURCE, 0).await?;
    let later = Counter::beyond(cli, SOURCE, first.count + 3).await?;
    let pid = later.pid;
    screen.check(
        format_args!("process {pid} counts: {} … {}", first.count, later.count),
        later.pid == first.pid,
    )?;
    Ok(later)
}

/// Standby, then template.
pub(super) async fn sleep(cli: &Cli<'_>, screen: &mut Screen, vmm: Vmm) -> anyhow::Result<()> {
    screen.chapter("Standby: memory goes to disk, the VMM ends");
    cli.shown(screen, &["standby", SOURCE]).await?;
    let state = cli.inspect(SOURCE).await?.state;
    screen.check(
        format_args!("it is in {state}"),
        state == InstanceState::Standby,
    )?;
    screen.check(
        format_args!("its VMM, process {}, is gone", vmm.pid),
        !vmm.is_alive() && cli.vmms().is_empty(),
    )?;
    screen.chapter("Promote it to a template");
    cli.shown(screen, &["promote", SOURCE]).await?;
    let template = cli.inspect(SOURCE).await?;
    screen.check(
        "it is a template",
        template.state == InstanceState::Template,
    )?;
    screen.check(
        "nobody shares its memory yet",
        template.fork_count == 0 && !template.mem_locked,
    )
}
