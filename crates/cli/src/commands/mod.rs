//! One command, one file: what is asked of the server, and how its answer is
//! told.

mod act;

mod completions;

mod cp;

mod create;

mod daemon;

mod exec;

mod fork;

mod image;

mod inspect;

mod logs;

mod ps;

mod rm;

mod run;

mod start;

mod stats;

mod tree;

mod wait;

use std::process::ExitCode;

use api::client::Client;

use crate::args::{Cli, Command, ImageCommand};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::settings::{Here, Settings};

use act::Action;

/// Does what the command line says.
pub(crate) async fn dispatch(cli: Cli) -> Result<ExitCode, Failure> {
    let Cli { global, command } = cli;
    // These need no server, and must work when its address makes no sense.
    match &command {
        Command::Doctor(args) => return Err(daemon::become_daemon("doctor", args, &global)),
        Command::Setup(args) => return Err(daemon::become_daemon("setup", args, &global)),
        Command::Token(args) => return Err(daemon::become_daemon("token", args, &global)),
        Command::Completions(args) => return completions::completions(args).map(done),
        _ => {}
    }
    let settings = Settings::resolve(&global, &Here)?;
    let client = settings.client()?;
    let printer = Printer::new(settings.format);
    if let Command::Exec(args) = command {
        return exec::exec(&client, &printer, args).await;
    }
    remote(&client, &printer, command).await.map(done)
}

async fn remote(client: &Client, printer: &Printer, command: Command) -> Result<(), Failure> {
    match command {
        Command::Run(args) => run::run(client, printer, args).await,
        Command::Create(args) => create::create(client, printer, args).await,
        Command::Ps(args) => ps::ps(client, printer, args).await,
        Command::Inspect(args) => inspect::inspect(client, printer, args).await,
        Command::Logs(args) => logs::logs(client, printer, args).await,
        Command::Cp(args) => cp::cp(client, printer, args).await,
        Command::Start(args) => start::start(client, printer, args).await,
        Command::Stop(args) => act::act(client, printer, Action::Stop, args).await,
        Command::Standby(args) => act::act(client, printer, Action::Standby, args).await,
        Command::Restore(args) => act::act(client, printer, Action::Restore, args).await,
        Command::Promote(args) => act::act(client, printer, Action::Promote, args).await,
        Command::Demote(args) => act::act(client, printer, Action::Demote, args).await,
        Command::Fork(args) => fork::fork(client, printer, args).await,
        Command::Tree(args) => tree::tree(client, printer, args).await,
        Command::Rm(args) => rm::rm(client, printer, args).await,
        Command::Wait(args) => wait::wait(client, printer, args).await,
        Command::Stats(args) => stats::stats(client, printer, args).await,
        Command::Image(ImageCommand::Import(args)) => {
            image::import::import(client, printer, args).await
        }
        Command::Image(ImageCommand::Ls) => image::ls::ls(client, printer).await,
        Command::Image(ImageCommand::Rm(args)) => image::rm::rm(client, printer, args).await,
        Command::Exec(_)
        | Command::Doctor(_)
        | Command::Setup(_)
        | Command::Token(_)
        | Command::Completions(_) => Err(Failure::usage("this command is not for a server")),
    }
}

fn done(_: ()) -> ExitCode {
    ExitCode::SUCCESS
}
