//! `stats`: what instances cost the host.

use api::client::{Client, ClientError};
use api::error::codes;
use api::instances::{Instance, InstanceStats, ListInstancesQuery};
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::ps;
use crate::args::StatsArgs;
use crate::explain::{self, Deed};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::table::{self, Align};
use crate::units;

/// Questions to the server under way at once.
const AT_ONCE: usize = 8;

/// An instance and what it costs.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    pub(super) instance: Instance,
    pub(super) stats: Stats,
}

/// What an instance costs, unless it went away while it was asked about.
#[derive(Debug, Serialize)]
pub(super) struct Stats(Option<InstanceStats>);

impl Stats {
    /// RAM, shared, private, VMM and proportional bytes for a table.
    pub(super) fn memory_cells(&self) -> [String; 5] {
        match self.0.as_ref().and_then(|stats| stats.memory.as_ref()) {
            Some(memory) => [
                memory.guest_ram_bytes,
                memory.shared_with_image_bytes,
                memory.private_bytes,
                memory.vmm_private_bytes,
                memory.pss_bytes,
            ]
            .map(units::bytes),
            None => [const { String::new() }; 5],
        }
    }

    /// Bytes that a template saves, for a table.
    pub(super) fn saved_cell(&self) -> String {
        self.saved_bytes().map(units::bytes).unwrap_or_default()
    }

    /// Bytes that a template saves.
    pub(super) fn saved_bytes(&self) -> Option<u64> {
        let template = self.0.as_ref()?.template.as_ref()?;
        Some(template.saved_bytes)
    }
}

/// Asks for the costs of all, in their order.
pub(super) async fn measure(
    client: &Client,
    instances: Vec<Instance>,
) -> Result<Vec<Measured>, ClientError> {
    stream::iter(instances)
        .map(|instance| async move {
            let stats = match client.stats(&instance.id).await {
                Ok(stats) => Some(stats),
                Err(error) if error.code() == Some(codes::NOT_FOUND) => None,
                Err(error) => return Err(error),
            };
            Ok(Measured {
                instance,
                stats: Stats(stats),
            })
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

pub(crate) async fn stats(
    client: &Client,
    printer: &Printer,
    args: StatsArgs,
) -> Result<(), Failure> {
    let mut names = args.instances;
    if names.is_empty() {
        names = client
            .list_instances(&ListInstancesQuery::default())
            .await?
            .into_iter()
            .filter(|instance| ps::is_shown(instance.state))
            .map(|instance| instance.id)
            .collect();
    }
    let mut all = Vec::with_capacity(names.len());
    for name in &names {
        match client.stats(name).await {
            Ok(stats) => all.push(stats),
            Err(error) => return Err(explain::instance(client, name, Deed::Look, error).await),
        }
    }
    Ok(printer.show(&all, |all| stats_table(all))?)
}

fn stats_table(all: &[InstanceStats]) -> String {
    table::render(
        [
            ("NAME", Align::Left),
            ("CPUS", Align::Right),
            ("CPU TIME", Align::Right),
            ("RAM", Align::Right),
            ("RSS", Align::Right),
            ("SHARED", Align::Right),
            ("PRIVATE", Align::Right),
            ("PSS", Align::Right),
            ("NET IN", Align::Right),
            ("NET OUT", Align::Right),
        ],
        all.iter().map(|stats| {
            let cell = |count: Option<u64>| count.map(units::bytes).unwrap_or_default();
            let memory = stats.memory.as_ref();
            [
                stats.instance_name.clone(),
                stats.allocated_vcpus.to_string(),
                format!("{:.1}s", stats.cpu_seconds),
                units::bytes(stats.allocated_memory_bytes),
                units::bytes(stats.memory_rss_bytes),
                cell(memory.map(|memory| memory.shared_with_image_bytes)),
                cell(memory.map(|memory| memory.private_bytes)),
                cell(memory.map(|memory| memory.pss_bytes)),
                units::bytes(stats.network_rx_bytes),
                units::bytes(stats.network_tx_bytes),
            ]
        }),
    )
}
