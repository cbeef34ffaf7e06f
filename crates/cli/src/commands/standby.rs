//! `standby`: the memory of instances into memory images.

use api::client::Client;
use api::instances::StandbyRequest;

use crate::args::StandbyArgs;
use crate::explain::{self, Deed};
use crate::failure::Failure;
use crate::printer::Printer;

/// Does it in the order given, and stops at the first refusal.
pub(crate) async fn standby(
    client: &Client,
    printer: &Printer,
    args: StandbyArgs,
) -> Result<(), Failure> {
    let request = StandbyRequest {
        compression: args.compression(),
        compression_delay: None,
    };
    for name in &args.instances {
        let progress = printer.spinner(format!("saving the memory of {name}"));
        let outcome = client.standby(name, &request).await;
        drop(progress);
        match outcome {
            Ok(instance) => printer.show(&instance, |instance| instance.name.clone())?,
            Err(error) => {
                return Err(explain::instance(client, name, Deed::Standby, error).await);
            }
        }
    }
    Ok(())
}
