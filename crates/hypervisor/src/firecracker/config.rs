//! What the driver may be told.

use std::path::PathBuf;
use std::time::Duration;

use super::jail::JailConfig;

/// Configuration of the Firecracker driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirecrackerConfig {
    /// Program; searched as `firecracker` in the `PATH` if absent.
    pub firecracker: Option<PathBuf>,
    /// Program and first arguments that lead to [`crate::launch_main`].
    pub launcher: Vec<String>,
    /// For a VMM to start and do what is asked of it; the machine is given up after that.
    pub start_deadline: Duration,
    /// Machines are jailed so; only root can do that. Absent: they run as the daemon's user.
    pub jail: Option<JailConfig>,
}

impl FirecrackerConfig {
    /// A machine starts in 10 ms alone, in seconds when many start at once on few cores. A pager that takes a machine's
    /// memory and serves nothing would stop it for ever.
    pub const START_DEADLINE: Duration = Duration::from_secs(60);
}
