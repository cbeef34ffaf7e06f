//! What the driver may be told.

use std::path::PathBuf;

/// Configuration of the Firecracker driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirecrackerConfig {
    /// Program; searched as `firecracker` in the `PATH` if absent.
    pub firecracker: Option<PathBuf>,
    /// Program and first arguments that lead to [`crate::launch_main`]; the path of a spec is added.
    pub launcher: Vec<String>,
}
