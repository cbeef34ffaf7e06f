//! Arguments of commands that only look.

use api::instances::InstanceState;
use clap::Args;

use crate::words::{Pair, parse_pair};

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Show those without a VMM too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Show whose pages they use
    #[arg(long)]
    pub(crate) memory: bool,
    /// Write ids only
    #[arg(short, long, conflicts_with_all = ["memory", "json"])]
    pub(crate) quiet: bool,
    /// Only those in this state
    #[arg(long, value_name = "STATE")]
    pub(crate) state: Option<InstanceState>,
    /// Only those with this label
    #[arg(short = 'l', long = "tag", value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub(crate) tags: Vec<Pair>,
    /// Only forks that share the memory of this template
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) fork_of: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Instances
    #[arg(required = true, value_name = "INSTANCE")]
    pub(crate) instances: Vec<String>,
    /// Show the values of the environment (--json always does)
    #[arg(long)]
    pub(crate) show_env: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TreeArgs {
    /// Only this template
    #[arg(value_name = "TEMPLATE")]
    pub(crate) template: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Instances; all with a VMM by default
    #[arg(value_name = "INSTANCE")]
    pub(crate) instances: Vec<String>,
}
