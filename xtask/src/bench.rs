//! `cargo xtask bench`: what the product promises about speed and memory, measured.
//!
//! Most figures are ratios against the same work done by hand right beside it, so that a slow or busy
//! host slows both sides. Prints a table, writes `target/bench.json`, and fails if a bound is missed.

mod by_hand;
mod fan_out;
mod first_exec;
mod footprint;
mod http;
mod lab;
mod network;
mod pager;
mod pause;
mod procfs;
mod records;
mod report;
mod samples;
mod standby;

use std::fs;

use anyhow::{Context, bail};
use boot::Assets;

use crate::private_daemon::{PrivateDaemon, Programs};
use crate::workspace::Workspace;
use crate::{assets, interrupt};
use lab::Lab;
use report::Report;

/// Lines of the daemon's log that are shown after an error.
const LOG_LINES: usize = 40;

/// Measures everything; with `quick` fewer samples of each.
pub(crate) fn run(workspace: &Workspace, quick: bool) -> anyhow::Result<()> {
    let programs = Programs::build(workspace)?;
    assets::make(workspace)?;
    let assets = Assets::open(&workspace.assets_dir().join("boot"))?;
    let archive = workspace.assets_dir().join("images/coppice-busybox.tar");
    let file = workspace.target_dir.join("bench.json");
    interrupt::run(async {
        // On a real disk: the system's temporary directory is in memory on many hosts.
        let parent = &workspace.target_dir;
        let mut report = Report::new(quick);
        pager::measure(workspace, quick, &mut report)?;
        network::measure_parts(workspace, quick, &mut report)?;
        for kind in [Kind::Bare, Kind::Connected, Kind::Shipped] {
            let flags = kind.flags();
            let daemon = PrivateDaemon::start(&programs, &assets, parent, flags).await?;
            let measured = async {
                let lab = Lab::open(&daemon, &archive, quick).await?;
                match kind {
                    Kind::Bare => measure(&lab, &mut report).await,
                    Kind::Connected => {
                        network::measure_forks(&lab, workspace, quick, &mut report).await
                    }
                    Kind::Shipped => first_exec::as_shipped(&lab, &mut report).await,
                }
            };
            let measured = measured.await;
            if measured.is_err() {
                eprintln!("\nthe daemon's last words:\n{}", daemon.log_tail(LOG_LINES));
            }
            measured?;
        }
        println!("\n{}", report.table());
        fs::write(&file, report.json()?).with_context(|| format!("write {}", file.display()))?;
        println!("\nwritten to {}", file.display());
        let missed = report.missed();
        if missed > 0 {
            bail!("{missed} bounds missed");
        }
        Ok(())
    })
}

/// What is measured of a daemon.
#[derive(Clone, Copy)]
enum Kind {
    /// Held against its VMM by hand: nothing prepared, nothing connected.
    Bare,
    /// What the network adds.
    Connected,
    /// With its defaults.
    Shipped,
}

impl Kind {
    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Bare => &["--warm-forks", "0", "--network", "off"],
            Self::Connected => &["--warm-forks", "0"],
            Self::Shipped => &[],
        }
    }
}

async fn measure(lab: &Lab<'_>, report: &mut Report) -> anyhow::Result<()> {
    first_exec::unprepared(lab, report).await?;
    fan_out::measure(lab, report).await?;
    standby::measure(lab, report).await?;
    standby::measure_compressed(lab, report).await?;
    pause::measure(lab, report).await?;
    footprint::measure(lab, report).await?;
    records::measure(lab, report).await
}
