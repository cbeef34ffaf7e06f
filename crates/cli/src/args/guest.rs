//! Arguments of commands that reach into a guest.

use clap::{Args, ValueEnum};

use crate::words::{Pair, parse_pair};

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Instance
    pub(crate) instance: String,
    /// Command; a shell by default
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
    /// Pass stdin on
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) tty: bool,
    /// Set a variable; KEY alone passes the value on
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = parse_pair)]
    pub(crate) env: Vec<Pair>,
    /// Directory to run it in
    #[arg(short = 'w', long, value_name = "DIR")]
    pub(crate) cwd: Option<String>,
    /// User to run it as, by name or number, with a group after a colon if wanted
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Kill it after so many seconds; it then counts as exit code 124
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Instance
    pub(crate) instance: String,
    /// Go on with new lines
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Lines from the end to begin with
    #[arg(short = 'n', long, default_value_t = 100, value_name = "LINES")]
    pub(crate) tail: u32,
    /// Which log
    #[arg(short, long, value_enum, default_value = "app")]
    pub(crate) source: LogSourceArg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogSourceArg {
    /// What its program writes
    App,
    /// What its VMM writes
    Vmm,
    /// What its guest's kernel writes
    Console,
    /// What was done to it
    Coppice,
}

#[derive(Debug, Args)]
#[command(after_help = "\
One of the two is INSTANCE:PATH, the other a path here. A path here that has a colon must begin with
`/` or `.`. A directory as target takes the source into it, under its own name.")]
pub(crate) struct CpArgs {
    /// From where
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// To where
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// Copy what links lead to
    #[arg(short = 'L', long)]
    pub(crate) follow_links: bool,
}
