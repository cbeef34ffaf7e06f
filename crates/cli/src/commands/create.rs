//! `create`: make an instance and do not wait.

use api::client::Client;
use api::instances::{CreateInstanceRequest, Instance, SnapshotPolicy};

use super::network;
use crate::args::CreateArgs;
use crate::explain;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::settings::{Here, Surroundings};
use crate::words;

pub(crate) async fn create(
    client: &Client,
    printer: &Printer,
    args: CreateArgs,
) -> Result<(), Failure> {
    let request = request(args)?;
    let progress = printer.spinner(format!("making {}", request.name));
    let instance = send(client, &request).await?;
    drop(progress);
    Ok(printer.show(&instance, |instance| instance.name.clone())?)
}

/// Asks the server for an instance.
pub(super) async fn send(
    client: &Client,
    request: &CreateInstanceRequest,
) -> Result<Instance, Failure> {
    client
        .create_instance(request)
        .await
        .map_err(|error| explain::image(&request.image, error))
}

/// The request that the arguments stand for. What is not given is left to the
/// server.
pub(super) fn request(args: CreateArgs) -> Result<CreateInstanceRequest, Failure> {
    let env = words::env(&args.env, |name| Here.variable(name))?;
    let group = args.network.policy.group.clone();
    let tags = network::labelled(words::tags(&args.tags)?, group)?;
    let name = match args.name {
        Some(name) => name,
        None => words::name_for_image(&args.image)?,
    };
    Ok(CreateInstanceRequest {
        name,
        image: args.image,
        platform: args.platform,
        size: args.memory,
        overlay_size: args.overlay_size,
        vcpus: args.cpus,
        env: (!env.is_empty()).then_some(env),
        tags: (!tags.is_empty()).then_some(tags),
        snapshot_policy: args
            .snapshots
            .compression()
            .map(|compression| SnapshotPolicy {
                compression: Some(compression),
                standby_compression_delay: None,
            }),
        network: network::of_new(args.network)?,
        hypervisor: args.hypervisor,
        ttl: args.ttl,
        expires_at: None,
        entrypoint: entrypoint(args.entrypoint),
        cmd: (!args.cmd.is_empty()).then_some(args.cmd),
        skip_guest_agent: args.skip_guest_agent.then_some(true),
        post_fork: args.post_fork.hook(),
    })
}

/// An empty word alone stands for no entrypoint at all.
pub(super) fn entrypoint(words: Vec<String>) -> Option<Vec<String>> {
    match words.as_slice() {
        [] => None,
        [only] if only.is_empty() => Some(Vec::new()),
        [_, ..] => Some(words),
    }
}
