//! The RAM of an image in the page tables of a VMM.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use memory::Run;

use super::blocking;
use crate::pages::{FileId, PageTables};
use crate::process::Process;
use crate::{ExitReason, VmmError};

/// A VMM that maps the RAM of an image.
pub(crate) struct Mapped {
    pub(crate) process: Arc<Process>,
    /// An error of a process that has ended is none: that is told.
    pub(crate) ram: io::Result<FileId>,
    pub(crate) ram_bytes: u64,
}

impl Mapped {
    pub(crate) async fn touched(self) -> Result<Vec<Run>, VmmError> {
        self.with_tables("look at", |tables| tables.present()).await
    }

    pub(crate) async fn enter(self, runs: Vec<Run>, limit: Duration) -> Result<u64, VmmError> {
        // Time that it waits for a thread counts.
        let until = Instant::now() + limit;
        let enter = move |tables: &PageTables| tables.populate(&runs, until);
        self.with_tables("fill", enter).await
    }

    /// An error has its reason in the end of the process, if that is near; and what is found of a number that is
    /// somebody else's by now is not told.
    async fn with_tables<T: Send + 'static>(
        self,
        what: &'static str,
        work: impl FnOnce(&PageTables) -> io::Result<T> + Send + 'static,
    ) -> Result<T, VmmError> {
        blocking(move || {
            let pid = self.process.id().pid;
            let tables = self
                .ram
                .and_then(|ram| PageTables::open(pid, ram, self.ram_bytes));
            let done = tables.and_then(|tables| work(&tables));
            if self.process.has_ended().unwrap_or(false) {
                return Err(VmmError::Exited {
                    reason: ExitReason::Unknown,
                    stderr: String::new(),
                });
            }
            let tables = PathBuf::from(format!("/proc/{pid}/pagemap"));
            done.map_err(VmmError::io(what, &tables))
        })
        .await
    }
}
