//! `exec`: a command in a guest, its streams passed through.

mod collect;

mod stream;

mod terminal;

use std::io::IsTerminal;
use std::process::ExitCode;

use api::client::Client;
use api::exec::{ExecStart, ExecStreams};

use crate::args::ExecArgs;
use crate::explain::{self, Deed};
use crate::failure::{EXIT_NOT_RUN, Failure};
use crate::printer::{Format, Printer};
use crate::settings::{Here, Surroundings};
use crate::words;

/// Ends with the exit code of the command, or with 125 when it was not run.
pub(crate) async fn exec(
    client: &Client,
    printer: &Printer,
    args: ExecArgs,
) -> Result<ExitCode, Failure> {
    let wants = stream::Wants {
        stdin: args.interactive,
        terminal: args.tty,
    };
    if wants.stdin && wants.terminal && !std::io::stdin().is_terminal() {
        return Err(
            Failure::plain("stdin is not a terminal, which -t with -i needs")
                .hint("leave -t out to pass other input on")
                .exit(EXIT_NOT_RUN),
        );
    }
    let instance = args.instance.clone();
    let start = start(args).map_err(|failure| failure.exit(EXIT_NOT_RUN))?;
    let session = match client.exec(&instance, &start).await {
        Ok(session) => session,
        Err(error) => {
            let failure = explain::instance(client, &instance, Deed::Inside, error).await;
            return Err(failure.exit(EXIT_NOT_RUN));
        }
    };
    let outcome = match printer.format() {
        Format::People => stream::stream(session, wants).await,
        Format::Json => collect::collect(printer, session, wants).await,
    };
    outcome
        .map(exit_code)
        .map_err(|failure| failure.exit(EXIT_NOT_RUN))
}

fn start(args: ExecArgs) -> Result<ExecStart, Failure> {
    let env = words::env(&args.env, |name| Here.variable(name))?;
    let size = args.tty.then(terminal::size).flatten();
    Ok(ExecStart {
        command: args.command,
        tty: args.tty,
        env: (!env.is_empty()).then_some(env),
        cwd: args.cwd,
        timeout: args.timeout,
        wait_for_agent: None,
        rows: size.map(|size| size.rows),
        cols: size.map(|size| size.cols),
        user: args.user,
        streams: ExecStreams::Tagged,
    })
}

/// Codes that a process here cannot end with become the nearest that says
/// "failed".
fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
