//! The words of the command line; nothing here does anything.

mod guest;

mod image;

mod ingress;

mod life;

mod look;

mod make;

mod memory;

mod network;

mod snapshot;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use guest::{CpArgs, ExecArgs, LogSourceArg, LogsArgs};
pub(crate) use image::{ImageCommand, ImageImportArgs, ImageRmArgs};
pub(crate) use ingress::{IngressCommand, IngressCreateArgs, IngressesArgs};
pub(crate) use life::{InstancesArgs, RmArgs, StartArgs, UpdateArgs, WaitArgs};
pub(crate) use look::{InspectArgs, PsArgs, StatsArgs, TreeArgs};
pub(crate) use make::{CreateArgs, ForkArgs, RunArgs, TargetArg};
pub(crate) use memory::{BackendArg, ForkMemoryArgs, PromoteArgs};
pub(crate) use network::{ChangedNetworkArgs, EgressArg, NetworkArgs, NewNetworkArgs};
pub(crate) use snapshot::{SnapshotPolicyArgs, StandbyArgs};

const AFTER_HELP: &str = "\
Instances are given by name, id, or the beginning of an id.

Environment:
  COPPICE_HOST   address of the daemon, as --host (also HYPEMAN_BASE_URL)
  COPPICE_TOKEN  access token (also HYPEMAN_API_KEY); unix sockets need none

Exit codes:
  0    done
  1    not done, or not all of it
  2    the arguments make no sense
  125  `exec` could not run the command, or lost it; other codes of `exec` are the command's";

/// Run, freeze and fork microVMs
#[derive(Debug, Parser)]
#[command(name = "coppice", version, after_help = AFTER_HELP, propagate_version = false)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// The daemon: http://HOST:PORT or unix:///PATH
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub(crate) host: Option<String>,
    /// File that holds the access token
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Write results as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one, for the life of the program"
)]
pub(crate) enum Command {
    #[command(flatten)]
    Remote(RemoteCommand),
    #[command(flatten)]
    Local(LocalCommand),
}

/// What a server does.
#[derive(Debug, Subcommand)]
pub(crate) enum RemoteCommand {
    /// Make an instance and wait until it runs
    Run(RunArgs),
    /// Make an instance and do not wait
    Create(CreateArgs),
    /// List instances
    Ps(PsArgs),
    /// Show all about instances
    Inspect(InspectArgs),
    /// Run a command in an instance
    Exec(ExecArgs),
    /// Show the logs of an instance
    Logs(LogsArgs),
    /// Copy files into or out of an instance
    Cp(CpArgs),
    /// Boot stopped instances
    Start(StartArgs),
    /// Shut instances down
    Stop(InstancesArgs),
    /// Change labels, time to live, variables and reach of instances
    Update(UpdateArgs),
    /// Save the memory of instances and free their host
    Standby(StandbyArgs),
    /// Wake instances from standby
    Restore(InstancesArgs),
    /// Make standby instances templates, whose memory forks can share
    Promote(PromoteArgs),
    /// Make templates ordinary standby instances again
    Demote(InstancesArgs),
    /// Make copies of an instance, memory included
    Fork(ForkArgs),
    /// Show templates and their forks
    Tree(TreeArgs),
    /// Remove instances
    Rm(RmArgs),
    /// Wait for an instance to reach a state
    Wait(WaitArgs),
    /// Show what instances cost the host
    Stats(StatsArgs),
    /// Bring in, list and remove images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Lead requests for host names to instances
    #[command(subcommand)]
    Ingress(IngressCommand),
}

/// What needs no server, and must work when its address makes no sense.
#[derive(Debug, Subcommand)]
pub(crate) enum LocalCommand {
    /// Say what is missing on this host
    #[command(disable_help_flag = true)]
    Doctor(DaemonArgs),
    /// Put the guest's kernel and agent in place
    #[command(disable_help_flag = true)]
    Setup(DaemonArgs),
    /// Make an access token
    #[command(disable_help_flag = true)]
    Token(DaemonArgs),
    /// Write shell completions
    Completions(CompletionsArgs),
}

/// Arguments for the daemon's own program.
#[derive(Debug, Args)]
pub(crate) struct DaemonArgs {
    /// Arguments that `coppiced` takes for this command
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGS"
    )]
    pub(crate) args: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}
