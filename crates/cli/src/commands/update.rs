//! `update`: change what can be changed of an instance in any state.

use api::client::Client;
use api::instances::UpdateInstanceRequest;

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
    let request = UpdateInstanceRequest {
        ttl: args.ttl,
        expires_at: None,
        tags: (args.no_tags || !tags.is_empty()).then_some(tags),
        env: (!env.is_empty()).then_some(env),
        network: None,
    };
    for name in &args.instances {
        match client.update_instance(name, &request).await {
            Ok(instance) => printer.show(&instance, |instance| instance.name.clone())?,
            Err(error) => return Err(explain::instance(client, name, Deed::Look, error).await),
        }
    }
    Ok(())
}
