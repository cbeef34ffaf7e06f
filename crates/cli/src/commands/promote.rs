//! `promote`: templates out of standby instances.

use api::client::Client;
use api::instances::PromoteRequest;

use crate::args::PromoteArgs;
use crate::explain::{self, Deed};
use crate::failure::Failure;
use crate::printer::Printer;

/// Does it in the order given, and stops at the first refusal.
pub(crate) async fn promote(
    client: &Client,
    printer: &Printer,
    args: PromoteArgs,
) -> Result<(), Failure> {
    let request = PromoteRequest {
        memory_backend: args.forks.memory_backend.map(Into::into),
        prefetch: args.forks.prefetch.map(Into::into),
    };
    for name in &args.instances {
        let progress = printer.spinner(format!("promoting {name}"));
        let outcome = if request == PromoteRequest::default() {
            client.promote_template(name).await
        } else {
            client.promote_template_with(name, &request).await
        };
        drop(progress);
        match outcome {
            Ok(instance) => printer.show(&instance, |instance| instance.name.clone())?,
            Err(error) => {
                return Err(explain::instance(client, name, Deed::Promote, error).await);
            }
        }
    }
    Ok(())
}
