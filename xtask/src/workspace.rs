//! Where things are in this checkout.

use std::path::PathBuf;

use anyhow::Context;
use cargo_metadata::{Metadata, MetadataCommand, Package};

/// The checkout and what cargo knows of it.
pub(crate) struct Workspace {
    /// The checkout's top directory.
    pub root: PathBuf,
    /// Where cargo puts what it builds.
    pub target_dir: PathBuf,
    metadata: Metadata,
}

impl Workspace {
    /// Asks cargo about the workspace that xtask itself is part of.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
        let metadata = MetadataCommand::new()
            .manifest_path(manifest)
            .no_deps()
            .exec()
            .context("cargo metadata")?;
        Ok(Self {
            root: metadata.workspace_root.clone().into(),
            target_dir: metadata.target_directory.clone().into(),
            metadata,
        })
    }

    /// Where `cargo xtask assets` puts what guests need.
    pub(crate) fn assets_dir(&self) -> PathBuf {
        self.target_dir.join("assets")
    }

    /// Our packages: crates, e2e and xtask.
    pub(crate) fn packages(&self) -> Vec<&Package> {
        self.metadata.workspace_packages()
    }
}
