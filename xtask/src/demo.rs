//! `cargo xtask demo`: the whole story on real guests, told by the commands that a user would type.
//!
//! One machine boots, counts in its memory, sleeps, becomes a template and is forked into eight; each
//! chapter shows what happened and checks it. The demo succeeds only if every check held.

mod before;
mod cli;
mod counter;
mod forks;
mod locked;
mod returned;
mod screen;

use std::env;
use std::time::Instant;

use boot::Assets;

use crate::private_daemon::{PrivateDaemon, Programs};
use crate::workspace::Workspace;
use crate::{assets, interrupt};
use cli::Cli;
use screen::Screen;

/// Lines of the daemon's log that are shown after a failure.
const LOG_LINES: usize = 40;

/// The machine that everything starts from.
const SOURCE: &str = "source";

/// Forks are named so, with a number.
const FORK: &str = "fork";

/// Forks made in one call.
const FORKS: u32 = 8;

/// Builds programs and assets, then tells the story.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let programs = Programs::build(workspace)?;
    assets::make(workspace)?;
    let assets = Assets::open(&workspace.assets_dir().join("boot"))?;
    let archive = workspace.assets_dir().join("images/coppice-busybox.tar");
    interrupt::run(async {
        let mut screen = Screen::new();
        screen.chapter("A private daemon in a temporary directory");
        screen.command(&["coppiced"]);
        let mut daemon = PrivateDaemon::start(&programs, &assets, &env::temp_dir(), &[]).await?;
        let told = tell(&mut daemon, &mut screen, &archive.to_string_lossy()).await;
        if told.is_err() {
            eprintln!("\nthe daemon's last words:\n{}", daemon.log_tail(LOG_LINES));
        }
        told?;
        returned::cleaned_up(daemon, &mut screen)?;
        screen.end();
        Ok(())
    })
}

async fn tell(
    daemon: &mut PrivateDaemon,
    screen: &mut Screen,
    archive: &str,
) -> anyhow::Result<()> {
    let cli = Cli::new(daemon)?;
    screen.check("it answers", cli.client.health().await.is_ok())?;
    before::image(&cli, screen, archive).await?;
    before::boot(&cli, screen).await?;
    let before = before::count(&cli, screen).await?;
    let counted_at = Instant::now();
    let vmm = cli.vmm(SOURCE).await?;
    before::sleep(&cli, screen, vmm).await?;
    forks::made(&cli, screen).await?;
    let now = forks::themselves(&cli, screen, &before, counted_at).await?;
    forks::apart(&cli, screen, &now).await?;
    locked::memory(&cli, screen).await?;
    locked::refusals(&cli, screen).await?;
    returned::unlocked(&cli, screen).await?;
    returned::goes_on(&cli, screen, &before).await?;
    returned::removed(&cli, screen).await?;
    drop(cli);
    let status = daemon.stop().await?;
    screen.check("the daemon stopped", status.success())
}
