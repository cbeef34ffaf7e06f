//! `ingress inspect`: all that is known of ingresses.

use api::client::Client;
use api::ingresses::Ingress;

use super::{options, origin, target};
use crate::args::IngressesArgs;
use crate::explain;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::sheet::Sheet;

pub(crate) async fn inspect(
    client: &Client,
    printer: &Printer,
    args: IngressesArgs,
) -> Result<(), Failure> {
    for (index, name) in args.ingresses.iter().enumerate() {
        let ingress = client
            .get_ingress(name)
            .await
            .map_err(|error| explain::ingress(name, error))?;
        printer.show(&ingress, |ingress| {
            let gap = if index > 0 { "\n" } else { "" };
            format!("{gap}{}", describe(ingress))
        })?;
    }
    Ok(())
}

fn describe(ingress: &Ingress) -> String {
    let mut sheet = Sheet::default();
    sheet.row("name", &ingress.name);
    sheet.row("id", &ingress.id);
    sheet.time("created", Some(ingress.created_at));
    for rule in &ingress.rules {
        sheet.row("requests for", &origin(rule));
        sheet.row("go to", &target(rule));
        let options = options(rule);
        if !options.is_empty() {
            sheet.row("options", &options);
        }
    }
    for (key, value) in &ingress.tags {
        sheet.row("tag", &format!("{key}={value}"));
    }
    sheet.into_text()
}
