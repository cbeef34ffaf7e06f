//! `cp`: files and trees into or out of a guest.

mod download;

mod extract;

mod place;

mod upload;

use api::client::Client;
use serde::Serialize;

use crate::args::CpArgs;
use crate::failure::Failure;
use crate::printer::Printer;
use place::Place;

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Copied {
    files: u64,
    directories: u64,
    bytes: u64,
}

pub(crate) async fn cp(client: &Client, printer: &Printer, args: CpArgs) -> Result<(), Failure> {
    let follow = args.follow_links;
    let copied = match (Place::parse(&args.source), Place::parse(&args.target)) {
        (Place::Guest(from), Place::Here(to)) => {
            download::download(client, printer, &from, &to, follow).await?
        }
        (Place::Here(from), Place::Guest(to)) => {
            upload::upload(client, printer, &from, &to, follow).await?
        }
        (Place::Guest(_), Place::Guest(_)) => {
            return Err(Failure::usage("cannot copy between two instances at once")
                .hint("copy out of the one, then into the other"));
        }
        (Place::Here(_), Place::Here(_)) => {
            return Err(Failure::usage("neither path is in an instance")
                .hint("write INSTANCE:PATH for the one that is"));
        }
    };
    Ok(printer.show(&copied, |_| String::new())?)
}
