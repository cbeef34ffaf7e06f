//! `start`: boot stopped instances.

use api::client::Client;
use api::instances::StartRequest;

use super::create::entrypoint;
use crate::args::StartArgs;
use crate::explain::{self, Deed};
use crate::failure::Failure;
use crate::printer::Printer;

pub(crate) async fn start(
    client: &Client,
    printer: &Printer,
    args: StartArgs,
) -> Result<(), Failure> {
    let request = StartRequest {
        entrypoint: entrypoint(args.entrypoint),
        cmd: (!args.cmd.is_empty()).then_some(args.cmd),
    };
    for name in &args.instances {
        let progress = printer.spinner(format!("booting {name}"));
        let outcome = client.start(name, &request).await;
        drop(progress);
        match outcome {
            Ok(instance) => printer.show(&instance, |instance| instance.name.clone())?,
            Err(error) => return Err(explain::instance(client, name, Deed::Start, error).await),
        }
    }
    Ok(())
}
