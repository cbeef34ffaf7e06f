//! `ingress rm`: remove ingresses.

use api::client::Client;
use serde::Serialize;

use crate::args::IngressesArgs;
use crate::explain;
use crate::failure::Failure;
use crate::printer::Printer;

#[derive(Debug, Serialize)]
struct Removed<'a> {
    ingress: &'a str,
    removed: bool,
}

pub(crate) async fn rm(
    client: &Client,
    printer: &Printer,
    args: IngressesArgs,
) -> Result<(), Failure> {
    for ingress in &args.ingresses {
        client
            .delete_ingress(ingress)
            .await
            .map_err(|error| explain::ingress(ingress, error))?;
        let result = Removed {
            ingress,
            removed: true,
        };
        printer.show(&result, |result| result.ingress.to_owned())?;
    }
    Ok(())
}
