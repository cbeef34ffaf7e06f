//! Arguments about how instances are connected.

use api::instances::PublishedPort;
use clap::{Args, ValueEnum};

use crate::ports::parse_port;

/// How instances are connected, whether they are made or changed.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct NetworkArgs {
    /// Lead a port of the host to a port of the instance, as 8080:80 or 127.0.0.1:5353:53/udp; repeat it for more
    #[arg(short, long, value_name = "[HOST_IP:]HOST_PORT:PORT[/udp]", value_parser = parse_port)]
    pub(crate) publish: Vec<PublishedPort>,
    /// What it reaches outside the host
    #[arg(long, value_name = "MODE")]
    pub(crate) egress: Option<EgressArg>,
    /// Put a block of addresses on the list of what it reaches; implies allow-list
    #[arg(long, value_name = "CIDR")]
    pub(crate) egress_cidr: Vec<String>,
    /// Put a name on the list of what it reaches, *.NAME for all below it; implies allow-list
    #[arg(long, value_name = "NAME")]
    pub(crate) egress_domain: Vec<String>,
    /// Open a block of private addresses, which are closed otherwise; never the host itself
    #[arg(long, value_name = "CIDR")]
    pub(crate) allow: Vec<String>,
    /// Most that it sends, such as 100Mbps or 12.5MB/s; none for no limit
    #[arg(long, value_name = "RATE")]
    pub(crate) bandwidth_up: Option<String>,
    /// Most that it receives
    #[arg(long, value_name = "RATE")]
    pub(crate) bandwidth_down: Option<String>,
    /// Group whose members reach each other by address and name: the label `network`
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) group: Option<String>,
}

/// How a new instance is connected.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct NewNetworkArgs {
    /// Connect it, or fail [default: connected where the server has networks]
    #[arg(long)]
    pub(crate) network: bool,
    /// Do not connect it
    #[arg(
        long,
        conflicts_with_all = [
            "network", "publish", "egress", "egress_cidr", "egress_domain", "allow", "bandwidth_up",
            "bandwidth_down", "group",
        ]
    )]
    pub(crate) no_network: bool,
    #[command(flatten)]
    pub(crate) policy: NetworkArgs,
}

/// How an instance that takes over another's connection differs from it.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct ChangedNetworkArgs {
    #[command(flatten)]
    pub(crate) policy: NetworkArgs,
    /// Close all private addresses again
    #[arg(long, conflicts_with = "allow")]
    pub(crate) no_allow: bool,
    /// Leave the group
    #[arg(long, conflicts_with = "group")]
    pub(crate) no_group: bool,
}

/// How far an instance reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EgressArg {
    /// The internet, and no private networks
    Open,
    /// Nothing
    None,
    /// What --egress-cidr and --egress-domain name
    AllowList,
}
