//! `ingress ls`: a list of ingresses, a row for each rule.

use api::client::Client;
use api::ingresses::Ingress;
use time::OffsetDateTime;

use super::{options, origin, target};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::table::{self, Align};
use crate::units;

pub(crate) async fn ls(client: &Client, printer: &Printer) -> Result<(), Failure> {
    let ingresses = client.list_ingresses().await?;
    let now = OffsetDateTime::now_utc();
    Ok(printer.show(&ingresses, |ingresses| ingress_table(ingresses, now))?)
}

fn ingress_table(ingresses: &[Ingress], now: OffsetDateTime) -> String {
    let rules = ingresses
        .iter()
        .flat_map(|ingress| ingress.rules.iter().map(move |rule| (ingress, rule)));
    table::render(
        [
            ("NAME", Align::Left),
            ("REQUESTS FOR", Align::Left),
            ("GO TO", Align::Left),
            ("OPTIONS", Align::Left),
            ("AGE", Align::Left),
        ],
        rules.map(|(ingress, rule)| {
            [
                ingress.name.clone(),
                origin(rule),
                target(rule),
                options(rule),
                units::age(ingress.created_at, now),
            ]
        }),
    )
}
