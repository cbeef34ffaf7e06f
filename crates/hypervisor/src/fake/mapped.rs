//! A fake machine's page table for the RAM of an image.
//!
//! A guest that somebody has connected to has touched all that it holds; what is entered ahead comes on top.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use memory::{PAGE_BYTES, Run, merge_runs};

use super::hooks::Operation;
use super::machine::Machine;
use super::vm::FakeVm;
use crate::{MappedRam, VmmError};

/// Pages that are there, but for those that the guest has touched.
#[derive(Debug, Default)]
pub(super) struct PageTable {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entered: BTreeSet<u64>,
    touched: bool,
}

impl PageTable {
    /// The guest touches all that it holds.
    pub(super) fn touch(&self) {
        self.inner().touched = true;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pages in the table of a machine that has one.
pub(super) fn present(machine: &Machine, table: &PageTable) -> BTreeSet<u64> {
    let inner = table.inner();
    let mut pages = inner.entered.clone();
    if inner.touched {
        // As it lies in RAM: its length and itself.
        let bytes = machine.guest.save().len() + 8;
        pages.extend(0..bytes.div_ceil(PAGE_BYTES) as u64);
    }
    pages
}

#[async_trait]
impl MappedRam for FakeVm {
    async fn touched(&self) -> Result<Vec<Run>, VmmError> {
        self.host.hooks().pass(Operation::Touched).await?;
        let run = |first| Run { first, count: 1 };
        let pages = present(&self.machine, self.table()?);
        Ok(merge_runs(pages.into_iter().map(run).collect()))
    }

    async fn enter(&self, runs: Vec<Run>, limit: Duration) -> Result<u64, VmmError> {
        self.host.hooks().pass(Operation::Enter).await?;
        let table = self.table()?;
        if limit.is_zero() {
            return Ok(0);
        }
        let before = present(&self.machine, table);
        let end = self.machine.facts.ram_bytes / PAGE_BYTES as u64;
        let pages = runs.iter().flat_map(|run| run.first..run.end().min(end));
        let new: BTreeSet<u64> = pages.filter(|page| !before.contains(page)).collect();
        let entered = new.len() as u64;
        table.inner().entered.extend(new);
        Ok(entered)
    }
}

impl FakeVm {
    fn table(&self) -> Result<&PageTable, VmmError> {
        if let Some(reason) = self.machine.ended() {
            return Err(VmmError::Exited {
                reason,
                stderr: String::new(),
            });
        }
        let table = self.machine.table();
        table.ok_or_else(|| VmmError::unusable("it maps no image"))
    }
}
