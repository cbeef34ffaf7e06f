//! `logs`: what an instance wrote, or what was done to it.

use api::client::Client;
use api::instances::{LogSource, LogsQuery};

use crate::args::{LogSourceArg, LogsArgs};
use crate::explain::{self, Deed};
use crate::failure::Failure;
use crate::printer::{Format, Printer};

pub(crate) async fn logs(
    client: &Client,
    printer: &Printer,
    args: LogsArgs,
) -> Result<(), Failure> {
    let query = LogsQuery {
        tail: Some(args.tail),
        follow: Some(args.follow),
        source: Some(match args.source {
            LogSourceArg::App => LogSource::App,
            LogSourceArg::Vmm => LogSource::Vmm,
            LogSourceArg::Console => LogSource::Console,
            LogSourceArg::Coppice => LogSource::Coppice,
        }),
    };
    let mut lines = match client.logs(&args.instance, &query).await {
        Ok(lines) => lines,
        Err(error) => {
            return Err(explain::instance(client, &args.instance, Deed::Look, error).await);
        }
    };
    while let Some(line) = lines.next().await? {
        match printer.format() {
            Format::People => printer.line(&line)?,
            // One string a line, so that a follower can be read as it goes.
            Format::Json => printer.line(&serde_json::Value::from(line).to_string())?,
        }
    }
    Ok(())
}
