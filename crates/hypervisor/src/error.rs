//! What can go wrong with a machine.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use memory::ImageError;

use crate::ExitReason;

/// Why a driver could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    /// The image was taken from a machine that differs from the one it should be loaded into.
    #[error("the memory image does not fit: {field} is {found:?} here, the image needs {wanted:?}")]
    Mismatch {
        /// Manifest field.
        field: &'static str,
        /// Value in the manifest.
        wanted: String,
        /// Value of this host, driver or plan.
        found: String,
    },
    /// The image cannot be read, or its bytes are damaged.
    #[error("memory image is unusable")]
    Image(#[from] ImageError),
    /// The machine to adopt was started by another driver.
    #[error("the machine runs on {owner}, which this driver does not drive")]
    Foreign {
        /// Name of its VMM.
        owner: String,
    },
    /// The VMM ended while something was asked of it.
    #[error("the VMM ended ({reason}){}", said(stderr))]
    Exited {
        /// How it ended.
        reason: ExitReason,
        /// Its last words.
        stderr: String,
    },
    /// The VMM loaded the state but complained about it; the machine was destroyed.
    #[error("restored state is inconsistent: {complaint}")]
    Inconsistent {
        /// Line that the VMM printed.
        complaint: String,
    },
    /// The VMM refused a command.
    #[error("the VMM refused {command}: {message}")]
    Refused {
        /// Command that was refused.
        command: String,
        /// Its reason.
        message: String,
    },
    /// No answer in time.
    #[error("no answer to {what} within {} ms", after.as_millis())]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// The plan, or the machine's state, does not allow it.
    #[error("{what}")]
    Unusable {
        /// Reason, readable by a user.
        what: String,
    },
    /// A system call failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// Verb of the failed call.
        action: &'static str,
        /// File, directory or program it was made on.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

impl VmmError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    pub(crate) fn unusable(what: impl Into<String>) -> Self {
        Self::Unusable { what: what.into() }
    }
}

fn said(stderr: &str) -> String {
    if stderr.is_empty() {
        String::new()
    } else {
        format!(": {stderr}")
    }
}
