//! `wait`: until an instance is in a state.

use api::client::Client;
use api::instances::WaitQuery;

use crate::args::WaitArgs;
use crate::explain::{self, Deed};
use crate::failure::Failure;
use crate::printer::Printer;

pub(crate) async fn wait(
    client: &Client,
    printer: &Printer,
    args: WaitArgs,
) -> Result<(), Failure> {
    let query = WaitQuery {
        state: args.state,
        timeout: Some(args.timeout),
    };
    let progress = printer.spinner(format!(
        "waiting for {} to be {}",
        args.instance, args.state
    ));
    let outcome = client.wait(&args.instance, &query).await;
    drop(progress);
    let seen = match outcome {
        Ok(seen) => seen,
        Err(error) => {
            return Err(explain::instance(client, &args.instance, Deed::Look, error).await);
        }
    };
    printer.show(&seen, |seen| seen.state.to_string())?;
    if seen.state == args.state {
        return Ok(());
    }
    let name = &args.instance;
    let state = seen.state;
    Err(match (seen.timed_out, seen.state_error) {
        (true, _) => Failure::plain(format!("{name} is still {state}")),
        (false, Some(error)) => Failure::plain(format!("{name} is {state}: {error}")),
        (false, None) => Failure::plain(format!("{name} is {state} and will not change by itself")),
    })
}
