//! Where an edge keeps its files.

use std::path::{Path, PathBuf};

/// The edge's directory, `<data dir>/edge`: one edge for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(PathBuf);

impl Place {
    /// Inside a data directory.
    #[must_use]
    pub fn in_data_dir(data_dir: &Path) -> Self {
        Self(data_dir.join("edge"))
    }

    /// This directory.
    #[must_use]
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self(directory.into())
    }

    /// The directory itself, 0700.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// The socket that the daemon asks at, 0600.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.0.join("edge.sock")
    }

    /// Held by the one edge of this directory.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.0.join("edge.lock")
    }

    /// The last document that was applied, 0600, for it has keys.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.0.join("config.json")
    }

    /// The last directory of instances.
    #[must_use]
    pub fn instances(&self) -> PathBuf {
        self.0.join("instances.json")
    }

    /// One line of JSON for each request of ingress.
    #[must_use]
    pub fn access_log(&self) -> PathBuf {
        self.0.join("access.log")
    }

    /// What the process itself has to say.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.0.join("edge.log")
    }
}
