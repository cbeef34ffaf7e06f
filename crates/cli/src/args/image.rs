//! Arguments of the image commands.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Bring in an OCI layout or a `docker save` archive
    Import(ImageImportArgs),
    /// List images
    Ls,
    /// Remove images
    Rm(ImageRmArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ImageImportArgs {
    /// Tar archive, directory of an OCI layout, or `-` for stdin
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// Name for the image; the archive's own by default
    #[arg(long, value_name = "REFERENCE")]
    pub(crate) name: Option<String>,
    /// Which image to take when there are several, such as linux/amd64
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ImageRmArgs {
    /// Images
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}
