//! Where a machine's memory goes, and what of an image's RAM its page tables hold.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use memory::Run;

use super::vm::FirecrackerVm;
use crate::machine::{Mapped, blocking};
use crate::pages::{FileId, RamMapping, read_smaps};
use crate::process::{cpu_seconds, page_faults, vms_bytes};
use crate::{MappedRam, MemoryReport, MemoryUse, Vm, VmmError};

#[async_trait]
impl MemoryReport for FirecrackerVm {
    async fn report(&self) -> Result<MemoryUse, VmmError> {
        let pid = self.process().pid;
        let saved = self.saved_bytes();
        let ram = self.open_ram().ok();
        let (ram_bytes, shares) = (
            self.record().machine.ram_bytes,
            self.record().base.is_some(),
        );
        blocking(move || {
            let failed = || VmmError::io("examine the memory of process", Path::new("smaps"));
            // Without a file RAM is anonymous: of a booted machine, or one that a pager serves.
            let mapping = match ram {
                Some(file) => RamMapping::File(FileId::of(&file).map_err(failed())?),
                None => RamMapping::Unreserved,
            };
            let smaps = read_smaps(pid, mapping).map_err(failed())?;
            let (sum, rest) = (smaps.ram, smaps.other);
            let anonymous = sum.anonymous.min(sum.rss);
            let shared = if shares { sum.rss - anonymous } else { 0 };
            Ok(MemoryUse {
                ram_bytes,
                ram_shared_bytes: shared,
                ram_private_bytes: sum.rss - shared + sum.swap,
                vmm_private_bytes: rest.anonymous + rest.swap + saved,
                pss_bytes: sum.pss + rest.pss + saved,
                rss_bytes: sum.rss + rest.rss + saved,
                vms_bytes: vms_bytes(pid).map_err(failed())?,
                page_faults: page_faults(pid).map_err(failed())?,
                cpu_seconds: cpu_seconds(pid).map_err(failed())?,
            })
        })
        .await
    }
}

impl FirecrackerVm {
    fn mapped(&self) -> Mapped {
        Mapped {
            process: self.shared_process(),
            ram: self.open_ram().and_then(FileId::of),
            ram_bytes: self.record().machine.ram_bytes,
        }
    }
}

#[async_trait]
impl MappedRam for FirecrackerVm {
    async fn touched(&self) -> Result<Vec<Run>, VmmError> {
        self.mapped().touched().await
    }

    async fn enter(&self, runs: Vec<Run>, limit: Duration) -> Result<u64, VmmError> {
        self.mapped().enter(runs, limit).await
    }
}
