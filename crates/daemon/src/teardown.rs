//! `coppiced teardown`: what a data directory has on the host beside its files, removed.

use anyhow::{Context as _, Result, bail};
use edge::{Client, ClientError, Place};

use crate::app::{self, data_dir};
use crate::config::Config;
use crate::instances::Layout;

/// What was removed.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Removed {
    /// The edge was running.
    pub edge: bool,
    /// Namespaces, interfaces and tables.
    pub network_objects: usize,
}

/// Ends the edge and removes the network. Refused while the daemon or a machine runs: both need
/// them. Files stay as they are.
pub async fn run(config: &Config) -> Result<Removed> {
    let layout = Layout::new(&config.data_dir);
    if !layout.root().exists() {
        return Ok(Removed::default());
    }
    let _lock = data_dir::lock(&layout.lock(), data_dir::PATIENCE).await?;
    let running = machines(&layout)?;
    if running > 0 {
        bail!("{running} machines run on this data directory; start coppiced and stop them first");
    }
    let client = Client::new(Place::in_data_dir(layout.root()).socket());
    let edge = match client.stop().await {
        Ok(()) => true,
        // Nobody serves the socket.
        Err(ClientError::Io { .. }) => false,
        Err(error) => return Err(error).context("cannot end the edge"),
    };
    Ok(Removed {
        edge,
        network_objects: app::remove_network(&layout)?,
    })
}

/// How many VMMs of the directory are alive.
fn machines(layout: &Layout) -> Result<usize> {
    let entries = match std::fs::read_dir(layout.instances()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error).context("cannot list the instances"),
    };
    let alive = entries
        .flatten()
        .filter(|entry| hypervisor::is_running(&entry.path().join("run")));
    Ok(alive.count())
}
