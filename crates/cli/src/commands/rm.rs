//! `rm`: remove instances.

use api::client::{Client, ClientError};
use api::error::codes;
use api::instances::DeleteInstanceQuery;
use serde::Serialize;

use crate::args::RmArgs;
use crate::explain::{self, Deed};
use crate::failure::Failure;
use crate::printer::Printer;

#[derive(Debug, Serialize)]
struct Removed {
    instance: String,
    removed: bool,
}

/// Removes all that can be, and says of the others why not. A template that is
/// named before its forks is tried again after them.
pub(crate) async fn rm(client: &Client, printer: &Printer, args: RmArgs) -> Result<(), Failure> {
    let query = DeleteInstanceQuery {
        graceful_shutdown: args.force.then_some(false),
    };
    let mut refused = Vec::new();
    for name in &args.instances {
        match remove(client, printer, name, &query, args.force).await? {
            Ok(()) => {}
            Err(error) => refused.push((name, error)),
        }
    }
    let again = refused.len() < args.instances.len();
    let mut failed = false;
    for (name, error) in refused {
        let error = if again && error.code() == Some(codes::INVALID_STATE) {
            match remove(client, printer, name, &query, args.force).await? {
                Ok(()) => continue,
                Err(error) => error,
            }
        } else {
            error
        };
        failed = true;
        // Told one by one; the exit code comes after the last.
        explain::instance(client, name, Deed::Remove, error)
            .await
            .report();
    }
    if failed { Err(Failure::told()) } else { Ok(()) }
}

async fn remove(
    client: &Client,
    printer: &Printer,
    name: &str,
    query: &DeleteInstanceQuery,
    force: bool,
) -> Result<Result<(), ClientError>, Failure> {
    let progress = printer.spinner(format!("removing {name}"));
    let outcome = client.delete_instance(name, query).await;
    drop(progress);
    let removed = match outcome {
        Ok(()) => true,
        Err(error) if force && error.code() == Some(codes::NOT_FOUND) => false,
        Err(error) => return Ok(Err(error)),
    };
    let result = Removed {
        instance: name.to_owned(),
        removed,
    };
    printer.show(&result, |result| match result.removed {
        true => result.instance.clone(),
        false => String::new(),
    })?;
    Ok(Ok(()))
}
