//! Work that cleans up after itself when the user ends it.

use std::future::Future;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};

/// Runs `work` to its end, or drops it, with all its guards, when this process is told to stop.
pub(crate) fn run(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::select! {
            result = work => result,
            _ = interrupt.recv() => bail!("interrupted"),
            _ = terminate.recv() => bail!("told to stop"),
            _ = hangup.recv() => bail!("the terminal is gone"),
        }
    })
}
