//! Saving a paused machine.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use memory::{Draft, Image, ImageError, merge_runs, page_count};
use serde_json::json;

use super::vm::QemuVm;
use crate::machine::{Base, MAX_LAYERS, RunDir, STATE_PART, in_place};
use crate::pages::{FileSource, Mapping, ProcessMemory, own_pages};
use crate::{Captured, Snapshots, Vm, VmStatus, VmmError};

/// State is a few hundred kilobytes and written in 2 to 4 ms.
const SAVE_DEADLINE: Duration = Duration::from_secs(10);

#[async_trait]
impl Snapshots for QemuVm {
    async fn capture(&self, draft: &mut Draft) -> Result<Captured, VmmError> {
        if self.status().await? != VmStatus::Paused {
            return Err(VmmError::unusable("only a paused machine can be captured"));
        }
        if self.captured.swap(true, Ordering::AcqRel) {
            return Err(VmmError::unusable(
                "the machine was captured already and has not run since",
            ));
        }
        let captured = async {
            self.save_state(draft).await?;
            in_place(|| self.save_ram(draft))
        };
        let captured = captured.await;
        if captured.is_err() {
            self.captured.store(false, Ordering::Release);
        }
        captured
    }
}

impl QemuVm {
    /// `live: false` leaves the block devices active, so that the machine may go on afterwards; pausing it has
    /// already flushed them.
    async fn save_state(&self, draft: &Draft) -> Result<(), VmmError> {
        let part = self.run_dir().join(STATE_PART);
        let given = self.give_state_file(&part)?;
        let arguments = json!({ "filename": STATE_PART, "live": false });
        self.qmp()
            .await?
            .run_within("xen-save-devices-state", arguments, SAVE_DEADLINE)
            .await?;
        let state = draft.state_path();
        let copied = || {
            fs::copy(&part, &state).map_err(VmmError::io("copy", &part))?;
            fs::remove_file(&part).map_err(VmmError::io("remove", &part))
        };
        // The VMM's user could write to the finished image through a file that is its own.
        if given {
            return copied();
        }
        match fs::rename(&part, &state) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => copied(),
            renamed => renamed.map_err(VmmError::io("rename", &part)),
        }
    }

    /// Makes the file for the state if QEMU runs as another user, who can make none in the run directory.
    fn give_state_file(&self, part: &Path) -> Result<bool, VmmError> {
        let failed = || VmmError::io("make", part);
        let user = crate::process::user(self.process().pid).map_err(failed())?;
        if user == rustix::process::geteuid().as_raw() {
            return Ok(false);
        }
        RunDir::drop_capture(self.run_dir());
        let mut options = fs::OpenOptions::new();
        let options = options.write(true).create_new(true).mode(0o600);
        let file = options.open(part).map_err(failed())?;
        fchown(&file, Some(user), Some(user)).map_err(failed())?;
        Ok(true)
    }

    fn save_ram(&self, draft: &mut Draft) -> Result<Captured, VmmError> {
        let ram_bytes = self.record().machine.ram_bytes;
        let (new_pages, linked_layers) = match &self.record().base {
            None => (self.save_own_ram(draft, ram_bytes)?, 0),
            Some(base) => self.save_over(base, draft, ram_bytes)?,
        };
        Ok(Captured {
            machine: self.record().machine.clone(),
            new_pages,
            linked_layers,
        })
    }

    /// RAM that belongs to the machine: the data of its memfd.
    fn save_own_ram(&self, draft: &mut Draft, ram_bytes: u64) -> Result<u64, VmmError> {
        let path = self.ram_path();
        let source = File::open(&path)
            .and_then(FileSource::open)
            .map_err(VmmError::io("read", &path))?;
        Ok(draft.write_layer(ram_bytes, &source)?.pages)
    }

    /// RAM mapped over an image: the pages that the machine has written, on top of the image's layers; or all of it
    /// if there would be too many layers, or most of the base is hidden anyway.
    fn save_over(
        &self,
        base: &Base,
        draft: &mut Draft,
        ram_bytes: u64,
    ) -> Result<(u64, usize), VmmError> {
        let pid = self.process().pid;
        let failed = || VmmError::io("read the RAM of the machine in", self.run_dir());
        let mapping = Mapping::find(pid, self.ram_file()?, ram_bytes).map_err(failed())?;
        let own = own_pages(pid, &mapping).map_err(failed())?;
        let image = Image::open(&base.image_dir)?;
        let below =
            image
                .manifest()
                .layers
                .get(..base.layers)
                .ok_or_else(|| ImageError::Draft {
                    what: format!("the image below has fewer than {} layers", base.layers),
                })?;
        let below_pages: u64 = below.iter().map(|layer| layer.pages).sum();
        if base.layers < MAX_LAYERS && page_count(&own) <= below_pages / 2 {
            for layer in below {
                draft.link_layer(&image, &layer.id)?;
            }
            let source = ProcessMemory::open(pid, mapping, own).map_err(failed())?;
            return Ok((draft.write_layer(ram_bytes, &source)?.pages, base.layers));
        }
        let path = self.ram_path();
        let mut runs = File::open(&path)
            .and_then(memory::data_runs)
            .map_err(VmmError::io("read", &path))?;
        runs.extend(own);
        let source = ProcessMemory::open(pid, mapping, merge_runs(runs)).map_err(failed())?;
        Ok((draft.write_layer(ram_bytes, &source)?.pages, 0))
    }
}
