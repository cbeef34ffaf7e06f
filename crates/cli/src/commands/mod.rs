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

mod ingress;

mod inspect;

mod logs;

mod network;

mod promote;

mod ps;

mod rm;

mod run;

mod standby;

mod start;

mod stats;

mod tree;

mod update;

mod wait;

use std::process::ExitCode;

use api::client::Client;
use api::instances::Instance;

use crate::args::{Cli, Command, ImageCommand, IngressCommand, LocalCommand, RemoteCommand};
use crate::explain::{self, Deed};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::settings::{Here, Settings};

use act::Action;

/// Does what the command line says.
pub(crate) async fn dispatch(cli: Cli) -> Result<ExitCode, Failure> {
    let global = cli.global;
    match cli.command {
        Command::Remote(command) => {
            let settings = Settings::resolve(&global, &Here)?;
            let client = settings.client()?;
            remote(&client, &Printer::new(settings.format), command).await
        }
        Command::Local(LocalCommand::Doctor(args)) => {
            Err(daemon::become_daemon("doctor", &args, &global))
        }
        Command::Local(LocalCommand::Setup(args)) => {
            Err(daemon::become_daemon("setup", &args, &global))
        }
        Command::Local(LocalCommand::Token(args)) => {
            Err(daemon::become_daemon("token", &args, &global))
        }
        Command::Local(LocalCommand::Completions(args)) => {
            completions::completions(&args).map(|()| ExitCode::SUCCESS)
        }
    }
}

async fn remote(
    client: &Client,
    printer: &Printer,
    command: RemoteCommand,
) -> Result<ExitCode, Failure> {
    use RemoteCommand as C;
    match command {
        C::Exec(args) => return exec::exec(client, printer, args).await,
        C::Run(args) => run::run(client, printer, args).await,
        C::Create(args) => create::create(client, printer, args).await,
        C::Ps(args) => ps::ps(client, printer, args).await,
        C::Inspect(args) => inspect::inspect(client, printer, args).await,
        C::Logs(args) => logs::logs(client, printer, args).await,
        C::Cp(args) => cp::cp(client, printer, args).await,
        C::Start(args) => start::start(client, printer, args).await,
        C::Stop(args) => act::act(client, printer, Action::Stop, args).await,
        C::Update(args) => update::update(client, printer, args).await,
        C::Standby(args) => standby::standby(client, printer, args).await,
        C::Restore(args) => act::act(client, printer, Action::Restore, args).await,
        C::Promote(args) => promote::promote(client, printer, args).await,
        C::Demote(args) => act::act(client, printer, Action::Demote, args).await,
        C::Fork(args) => fork::fork(client, printer, args).await,
        C::Tree(args) => tree::tree(client, printer, args).await,
        C::Rm(args) => rm::rm(client, printer, args).await,
        C::Wait(args) => wait::wait(client, printer, args).await,
        C::Stats(args) => stats::stats(client, printer, args).await,
        C::Image(ImageCommand::Import(args)) => image::import::import(client, printer, args).await,
        C::Image(ImageCommand::Ls) => image::ls::ls(client, printer).await,
        C::Image(ImageCommand::Rm(args)) => image::rm::rm(client, printer, args).await,
        C::Ingress(IngressCommand::Create(args)) => {
            ingress::create::create(client, printer, args).await
        }
        C::Ingress(IngressCommand::Ls) => ingress::ls::ls(client, printer).await,
        C::Ingress(IngressCommand::Inspect(args)) => {
            ingress::inspect::inspect(client, printer, args).await
        }
        C::Ingress(IngressCommand::Rm(args)) => ingress::rm::rm(client, printer, args).await,
    }?;
    Ok(ExitCode::SUCCESS)
}

/// An instance by name or id.
async fn find(client: &Client, name: &str) -> Result<Instance, Failure> {
    match client.get_instance(name).await {
        Ok(instance) => Ok(instance),
        Err(error) => Err(explain::instance(client, name, Deed::Look, error).await),
    }
}
