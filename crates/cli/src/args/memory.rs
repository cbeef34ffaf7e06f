//! Arguments about the memory of forks.

use api::instances::{MemoryBackend, Prefetch};
use clap::{Args, ValueEnum};

/// What the memory of forks comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendArg {
    /// What fits the memory image
    Auto,
    /// Mapped from files, clean pages shared
    File,
    /// Page by page from a pager
    Uffd,
}

impl From<BackendArg> for MemoryBackend {
    fn from(backend: BackendArg) -> Self {
        match backend {
            BackendArg::Auto => Self::Auto,
            BackendArg::File => Self::File,
            BackendArg::Uffd => Self::Uffd,
        }
    }
}

/// What is done with the pages that forks touch first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrefetchArg {
    /// Recorded by the first forks, filled ahead in later ones
    On,
    /// Neither
    Off,
    /// Recorded anew
    Record,
}

impl From<PrefetchArg> for Prefetch {
    fn from(prefetch: PrefetchArg) -> Self {
        match prefetch {
            PrefetchArg::On => Self::On,
            PrefetchArg::Off => Self::Off,
            PrefetchArg::Record => Self::Record,
        }
    }
}

/// What holds for the forks of a template.
#[derive(Debug, Args)]
pub(crate) struct ForkMemoryArgs {
    /// What the memory of its forks to come is from
    #[arg(long, value_name = "BACKEND")]
    pub(crate) memory_backend: Option<BackendArg>,
    /// What is done with the pages that its forks touch first
    #[arg(long, value_name = "WHAT")]
    pub(crate) prefetch: Option<PrefetchArg>,
}

#[derive(Debug, Args)]
pub(crate) struct PromoteArgs {
    /// Instances
    #[arg(required = true, value_name = "INSTANCE")]
    pub(crate) instances: Vec<String>,
    #[command(flatten)]
    pub(crate) forks: ForkMemoryArgs,
}
