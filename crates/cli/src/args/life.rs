//! Arguments of commands that move instances between states.

use api::instances::InstanceState;
use clap::Args;

use super::{ChangedNetworkArgs, ForkMemoryArgs};
use crate::words::{Pair, parse_pair};

#[derive(Debug, Args)]
pub(crate) struct InstancesArgs {
    /// Instances
    #[arg(required = true, value_name = "INSTANCE")]
    pub(crate) instances: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Instances
    #[arg(required = true, value_name = "INSTANCE")]
    pub(crate) instances: Vec<String>,
    /// Program that replaces the entrypoint from now on; repeat it for arguments, give it empty for none
    #[arg(long, value_name = "WORD")]
    pub(crate) entrypoint: Vec<String>,
    /// Command that replaces the present one from now on
    #[arg(last = true, value_name = "CMD")]
    pub(crate) cmd: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
What is given about the network holds at once. Ports, blocks and names replace those it has.")]
pub(crate) struct UpdateArgs {
    /// Instances
    #[arg(required = true, value_name = "INSTANCE")]
    pub(crate) instances: Vec<String>,
    /// Set a variable of later starts; KEY alone passes the value on
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = parse_pair)]
    pub(crate) env: Vec<Pair>,
    /// Label it so instead of as it is now
    #[arg(short = 'l', long = "tag", value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub(crate) tags: Vec<Pair>,
    /// Take all labels off
    #[arg(long, conflicts_with = "tags")]
    pub(crate) no_tags: bool,
    /// Remove it after this time from now, such as 90s or 1h30m; 0s for never
    #[arg(long, value_name = "DURATION")]
    pub(crate) ttl: Option<String>,
    #[command(flatten)]
    pub(crate) network: ChangedNetworkArgs,
    /// Take all published ports back
    #[arg(long, conflicts_with = "publish", help_heading = "Network")]
    pub(crate) no_publish: bool,
    #[command(flatten)]
    pub(crate) forks: ForkMemoryArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Instances
    #[arg(required = true, value_name = "INSTANCE")]
    pub(crate) instances: Vec<String>,
    /// End guests without asking them, and do not mind instances that are not there; the memory of
    /// a template stays while forks use it
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Instance
    pub(crate) instance: String,
    /// State to wait for
    #[arg(long, default_value = "Running", value_name = "STATE")]
    pub(crate) state: InstanceState,
    /// Longest wait, 5m at most
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    pub(crate) timeout: String,
}
