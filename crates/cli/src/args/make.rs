//! Arguments of commands that make instances.

use api::instances::PostFork;
use clap::{Args, ValueEnum};

use super::{BackendArg, ChangedNetworkArgs, NewNetworkArgs, SnapshotPolicyArgs};
use crate::words::{Pair, parse_pair};

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Image to make it from
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Command that replaces the image's
    #[arg(last = true, value_name = "CMD")]
    pub(crate) cmd: Vec<String>,
    /// Name; made up from the image's by default
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Set a variable of its program; KEY alone passes the value on
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = parse_pair)]
    pub(crate) env: Vec<Pair>,
    /// Memory, such as 512MB [default: the daemon's, 1GB]
    #[arg(short, long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Processors [default: the daemon's, 2]
    #[arg(long, value_name = "COUNT")]
    pub(crate) cpus: Option<u32>,
    /// Size of the writable disk; it takes only what is written [default: the daemon's, 10GB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) overlay_size: Option<String>,
    /// Platform of the image, such as linux/amd64
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// VMM to run it in, qemu or firecracker [default: the daemon's]
    #[arg(long, value_name = "NAME")]
    pub(crate) hypervisor: Option<String>,
    /// Label it
    #[arg(short = 'l', long = "tag", value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub(crate) tags: Vec<Pair>,
    /// Remove it after this time, such as 90s or 1h30m
    #[arg(long, value_name = "DURATION")]
    pub(crate) ttl: Option<String>,
    /// Program that replaces the image's entrypoint; repeat it for arguments, give it empty for none
    #[arg(long, value_name = "WORD")]
    pub(crate) entrypoint: Vec<String>,
    /// Do not wait for the agent; exec and cp will not work
    #[arg(long)]
    pub(crate) skip_guest_agent: bool,
    #[command(flatten)]
    pub(crate) post_fork: PostForkArgs,
    #[command(flatten)]
    pub(crate) snapshots: SnapshotPolicyArgs,
    #[command(flatten)]
    pub(crate) network: NewNetworkArgs,
}

/// What copies run to become machines of their own.
#[derive(Debug, Args)]
pub(crate) struct PostForkArgs {
    /// Line for `/bin/sh` that each copy runs before it counts as running; when it fails there is no copy
    #[arg(long, value_name = "LINE")]
    post_fork: Option<String>,
    /// Longest that the line may take, 55s at most [default: 30s]
    #[arg(long, value_name = "DURATION", requires = "post_fork")]
    post_fork_timeout: Option<String>,
}

impl PostForkArgs {
    pub(crate) fn hook(self) -> Option<PostFork> {
        let line = self.post_fork?;
        Some(PostFork {
            command: vec!["/bin/sh".to_owned(), "-c".to_owned(), line],
            timeout: self.post_fork_timeout,
        })
    }
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) create: CreateArgs,
    /// Longest wait for it to run, 5m at most
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    pub(crate) wait_timeout: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Each copy has an address of its own. It may do on the network what its source may, unless something
else is said here; ports of the host stay with the source.")]
pub(crate) struct ForkArgs {
    /// Instance to copy
    #[arg(value_name = "INSTANCE")]
    pub(crate) source: String,
    /// Name of the copy; with --count the beginning of the names
    #[arg(value_name = "NAME", conflicts_with = "name_flag")]
    pub(crate) name: Option<String>,
    /// The same, as an option; made up from the source's by default
    #[arg(long = "name", value_name = "NAME")]
    pub(crate) name_flag: Option<String>,
    /// Number of copies; they are named NAME-1, NAME-2, …
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) count: Option<u32>,
    /// Share the source's memory instead of copying it [default: true for templates]
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(crate) share_memory: Option<bool>,
    /// Fork the source while it runs; it is paused for a moment
    #[arg(long)]
    pub(crate) from_running: bool,
    /// Template to take the memory from
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) template: Option<String>,
    /// What the copies' memory comes from [default: what the template says, else the daemon]
    #[arg(long, value_name = "BACKEND")]
    pub(crate) memory_backend: Option<BackendArg>,
    /// State to bring the copies to
    #[arg(long, value_name = "STATE", ignore_case = true)]
    pub(crate) target_state: Option<TargetArg>,
    /// Set a variable on top of the source's
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = parse_pair)]
    pub(crate) env: Vec<Pair>,
    /// Label the copies instead of inheriting the source's labels
    #[arg(short = 'l', long = "tag", value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub(crate) tags: Vec<Pair>,
    #[command(flatten)]
    pub(crate) post_fork: PostForkArgs,
    #[command(flatten)]
    pub(crate) network: ChangedNetworkArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TargetArg {
    Running,
    Standby,
    Stopped,
}
