//! `coppice`, the command line of the system.
//!
//! Arguments become settings, settings a client, commands call the client, and
//! the printer decides how results look. Only data goes to stdout.

mod args;

mod settings;

mod sheet;

mod commands;

mod explain;

mod failure;

mod ports;

mod printer;

mod progress;

mod table;

mod units;

mod words;

use std::process::ExitCode;

use clap::Parser;

use args::Cli;
use failure::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::local("cannot start the runtime", error))?;
    let outcome = runtime.block_on(commands::dispatch(cli));
    // A read of stdin may be under way in a thread; it must not delay the end.
    runtime.shutdown_background();
    outcome
}
