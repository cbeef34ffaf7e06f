//! `update`: change what can be changed of an instance in any state.

use std::collections::BTreeMap;

use api::client::Client;
use api::instances::UpdateInstanceRequest;

use super::network::{self, Regroup};
use crate::args::UpdateArgs;
use crate::explain::{self, Deed};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::settings::{Here, Surroundings};
use crate::words;

pub(crate) async fn update(
    client: &Client,
    printer: &Printer,
    args: UpdateArgs,
) -> Result<(), Failure> {
    let env = words::env(&args.env, |name| Here.variable(name))?;
    let tags = words::tags(&args.tags)?;
    let given = (args.no_tags || !tags.is_empty()).then_some(tags);
    let regroup = Regroup::of(&args.network);
    let mut request = UpdateInstanceRequest {
        ttl: args.ttl,
        expires_at: None,
        tags: None,
        env: (!env.is_empty()).then_some(env),
        network: network::of_changed(args.network, args.no_publish)?,
        memory_backend: args.forks.memory_backend.map(Into::into),
        prefetch: args.forks.prefetch.map(Into::into),
    };
    if given.is_none() && regroup == Regroup::Stay && request == UpdateInstanceRequest::default() {
        return Err(Failure::usage("nothing is given that is to change")
            .hint("`coppice update --help` lists what can be changed"));
    }
    for name in &args.instances {
        let present = match regroup.needs_present(given.as_ref()) {
            true => super::find(client, name).await?.tags,
            false => BTreeMap::new(),
        };
        request.tags = regroup.labels(given.as_ref(), &present)?;
        match client.update_instance(name, &request).await {
            Ok(instance) => printer.show(&instance, |instance| instance.name.clone())?,
            Err(error) => return Err(explain::instance(client, name, Deed::Look, error).await),
        }
    }
    Ok(())
}
