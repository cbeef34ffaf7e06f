//! `ps`: a list of instances.

use std::collections::HashMap;

use api::client::Client;
use api::instances::{Instance, InstanceState, ListInstancesQuery};
use time::OffsetDateTime;

use super::stats::{self, Measured};
use crate::args::PsArgs;
use crate::explain::{self, Deed};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::table::{self, Align};
use crate::{ports, units, words};

/// As much of an id as is shown; the beginning of an id is enough everywhere.
const ID_SHOWN: usize = 12;

pub(crate) async fn ps(client: &Client, printer: &Printer, args: PsArgs) -> Result<(), Failure> {
    let query = query(client, &args).await?;
    let listed = client.list_instances(&query).await?;
    let names = Names::of(&listed);
    let shown: Vec<Instance> = listed
        .into_iter()
        .filter(|instance| args.all || args.state.is_some() || is_shown(instance.state))
        .collect();
    if args.memory {
        let measured = stats::measure(client, shown).await?;
        return Ok(printer.show(&measured, |rows| memory_table(rows, &names))?);
    }
    if args.quiet {
        for instance in &shown {
            printer.line(&instance.id)?;
        }
        return Ok(());
    }
    let now = OffsetDateTime::now_utc();
    Ok(printer.show(&shown, |shown| instance_table(shown, &names, now))?)
}

async fn query(client: &Client, args: &PsArgs) -> Result<ListInstancesQuery, Failure> {
    let fork_of = match &args.fork_of {
        // The server wants the id, people have names.
        Some(name) => match client.get_instance(name).await {
            Ok(template) => Some(template.id),
            Err(error) => return Err(explain::instance(client, name, Deed::Look, error).await),
        },
        None => None,
    };
    Ok(ListInstancesQuery {
        state: args.state,
        fork_of,
        tags: words::tags(&args.tags)?,
    })
}

/// Those with a VMM, and those that need attention.
pub(super) fn is_shown(state: InstanceState) -> bool {
    match state {
        InstanceState::Created
        | InstanceState::Initializing
        | InstanceState::Running
        | InstanceState::Paused
        | InstanceState::Shutdown
        | InstanceState::Unknown => true,
        InstanceState::Stopped | InstanceState::Standby | InstanceState::Template => false,
    }
}

/// Names of instances by id, to show parents by.
struct Names(HashMap<String, String>);

impl Names {
    fn of(instances: &[Instance]) -> Self {
        Self(
            instances
                .iter()
                .map(|instance| (instance.id.clone(), instance.name.clone()))
                .collect(),
        )
    }

    fn parent(&self, instance: &Instance) -> String {
        match &instance.fork_of_template {
            Some(id) => self.0.get(id).cloned().unwrap_or_else(|| short(id)),
            None => String::new(),
        }
    }
}

fn short(id: &str) -> String {
    id.chars().take(ID_SHOWN).collect()
}

fn instance_table(instances: &[Instance], names: &Names, now: OffsetDateTime) -> String {
    table::render(
        [
            ("NAME", Align::Left),
            ("ID", Align::Left),
            ("IMAGE", Align::Left),
            ("STATE", Align::Left),
            ("VMM", Align::Left),
            ("ADDRESS", Align::Left),
            ("MEMORY", Align::Right),
            ("FORKS", Align::Right),
            ("PARENT", Align::Left),
            ("AGE", Align::Left),
            ("PORTS", Align::Left),
        ],
        instances.iter().map(|instance| {
            [
                instance.name.clone(),
                short(&instance.id),
                instance.image.clone(),
                instance.state.to_string(),
                instance.hypervisor.clone(),
                instance.network.ip.clone().unwrap_or_default(),
                instance.size.clone(),
                match instance.fork_count {
                    0 => String::new(),
                    count => count.to_string(),
                },
                names.parent(instance),
                units::age(instance.created_at, now),
                open_ports(instance),
            ]
        }),
    )
}

/// Ports of the host that lead to an instance now; they are open while it has an address.
fn open_ports(instance: &Instance) -> String {
    if instance.network.ip.is_none() {
        return String::new();
    }
    let ports: Vec<String> = instance.network.publish.iter().map(ports::shown).collect();
    ports.join(", ")
}

fn memory_table(rows: &[Measured], names: &Names) -> String {
    table::render(
        [
            ("NAME", Align::Left),
            ("STATE", Align::Left),
            ("PARENT", Align::Left),
            ("FROM", Align::Left),
            ("RAM", Align::Right),
            ("SHARED", Align::Right),
            ("PRIVATE", Align::Right),
            ("VMM", Align::Right),
            ("PSS", Align::Right),
            ("SAVED", Align::Right),
            ("ASLEEP IN", Align::Right),
        ],
        rows.iter().map(|row| {
            let [ram, shared, private, vmm, pss] = row.stats.memory_cells();
            [
                row.instance.name.clone(),
                row.instance.state.to_string(),
                names.parent(&row.instance),
                backend(&row.instance),
                ram,
                shared,
                private,
                vmm,
                pss,
                row.stats.saved_cell(),
                asleep_in(&row.instance),
            ]
        }),
    )
}

/// Size of the memory image that it would wake from.
fn asleep_in(instance: &Instance) -> String {
    match &instance.memory_image {
        Some(image) => units::bytes(image.stored_bytes),
        None => String::new(),
    }
}

/// What its memory comes from, while it has any.
fn backend(instance: &Instance) -> String {
    match instance.memory_backend {
        Some(backend) if is_shown(instance.state) => backend.as_str().to_owned(),
        _ => String::new(),
    }
}
