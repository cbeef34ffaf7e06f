//! Where a machine's memory goes.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use async_trait::async_trait;

use super::layout::{RAM_FD, SAVED_RAM_FD};
use super::vm::FirecrackerVm;
use crate::machine::blocking;
use crate::pages::{FileId, RamMapping, read_smaps};
use crate::process::{cpu_seconds, vms_bytes};
use crate::{MemoryReport, MemoryUse, Vm, VmmError};

/// What `st_blocks` counts.
const BLOCK_BYTES: u64 = 512;

#[async_trait]
impl MemoryReport for FirecrackerVm {
    async fn report(&self) -> Result<MemoryUse, VmmError> {
        let pid = self.process().pid;
        let (ram, saved) = (self.descriptor(RAM_FD), self.descriptor(SAVED_RAM_FD));
        let (ram_bytes, shares) = (
            self.record().machine.ram_bytes,
            self.record().base.is_some(),
        );
        blocking(move || {
            let failed = || VmmError::io("examine the memory of process", Path::new("smaps"));
            // Without a file RAM is anonymous: of a booted machine, or one that a pager serves.
            let mapping = match File::open(&ram) {
                Ok(file) => RamMapping::File(FileId::of(&file).map_err(failed())?),
                Err(_) => RamMapping::Unreserved,
            };
            let smaps = read_smaps(pid, mapping).map_err(failed())?;
            // What was saved is in no mapping.
            let saved = std::fs::metadata(&saved).map_or(0, |saved| saved.blocks() * BLOCK_BYTES);
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
                cpu_seconds: cpu_seconds(pid).map_err(failed())?,
            })
        })
        .await
    }
}
