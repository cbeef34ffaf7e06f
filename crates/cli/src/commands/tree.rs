//! `tree`: templates, their forks, and what sharing saves.

use std::collections::{BTreeMap, HashSet};

use api::client::Client;
use api::instances::{Instance, InstanceState, ListInstancesQuery};
use serde::Serialize;

use super::stats::{self, Measured, Stats};
use crate::args::TreeArgs;
use crate::explain::{self, Deed};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::units;

/// An instance with its forks.
#[derive(Debug, Serialize)]
struct Node {
    instance: Instance,
    stats: Stats,
    forks: Vec<Node>,
}

pub(crate) async fn tree(
    client: &Client,
    printer: &Printer,
    args: TreeArgs,
) -> Result<(), Failure> {
    let root = match &args.template {
        Some(name) => match client.get_instance(name).await {
            Ok(template) => Some(template.id),
            Err(error) => return Err(explain::instance(client, name, Deed::Look, error).await),
        },
        None => None,
    };
    let all = client
        .list_instances(&ListInstancesQuery::default())
        .await?;
    let family: Vec<Instance> = all.into_iter().filter(is_family).collect();
    let measured = stats::measure(client, family).await?;
    let roots = grow(measured, root.as_deref());
    Ok(printer.show(&roots, |roots| draw(roots))?)
}

fn is_family(instance: &Instance) -> bool {
    instance.state == InstanceState::Template
        || instance.fork_count > 0
        || instance.fork_of_template.is_some()
}

/// Puts forks below their parents. Roots are the one asked for, or those whose
/// parent is not among the given.
fn grow(all: Vec<Measured>, root: Option<&str>) -> Vec<Node> {
    let known: HashSet<String> = all.iter().map(|one| one.instance.id.clone()).collect();
    let mut roots = Vec::new();
    let mut below: BTreeMap<String, Vec<Measured>> = BTreeMap::new();
    for one in all {
        let parent = one.instance.fork_of_template.clone();
        let is_root = match root {
            Some(root) => one.instance.id == root,
            None => parent.as_ref().is_none_or(|id| !known.contains(id)),
        };
        match parent {
            _ if is_root => roots.push(one),
            Some(parent) => below.entry(parent).or_default().push(one),
            None => {}
        }
    }
    attach(roots, &mut below)
}

fn attach(siblings: Vec<Measured>, below: &mut BTreeMap<String, Vec<Measured>>) -> Vec<Node> {
    siblings
        .into_iter()
        .map(|Measured { instance, stats }| {
            let forks = below.remove(&instance.id).unwrap_or_default();
            Node {
                forks: attach(forks, below),
                instance,
                stats,
            }
        })
        .collect()
}

fn draw(roots: &[Node]) -> String {
    let mut lines = Vec::new();
    for root in roots {
        lines.push(label(root));
        draw_forks(&root.forks, "", &mut lines);
    }
    lines.join("\n")
}

fn draw_forks(forks: &[Node], indent: &str, lines: &mut Vec<String>) {
    for (index, fork) in forks.iter().enumerate() {
        let last = index + 1 == forks.len();
        let (branch, below) = if last {
            ("└── ", "    ")
        } else {
            ("├── ", "│   ")
        };
        lines.push(format!("{indent}{branch}{}", label(fork)));
        draw_forks(&fork.forks, &format!("{indent}{below}"), lines);
    }
}

fn label(node: &Node) -> String {
    let instance = &node.instance;
    let mut parts = vec![format!("{} {}", instance.name, instance.state)];
    let [ram, shared, private, vmm, _] = node.stats.memory_cells();
    if ram.is_empty() {
        parts.push(format!("memory {}", instance.size));
    } else {
        parts.push(format!("memory {ram}"));
        parts.push(format!("shared {shared}"));
        parts.push(format!("private {private}"));
        parts.push(format!("vmm {vmm}"));
    }
    if instance.fork_count > 0 {
        let plural = if instance.fork_count == 1 { "" } else { "s" };
        parts.push(format!("{} fork{plural}", instance.fork_count));
    }
    if let Some(saved) = node.stats.saved_bytes().filter(|saved| *saved > 0) {
        parts.push(format!("saves {}", units::bytes(saved)));
    }
    parts.join(", ")
}
