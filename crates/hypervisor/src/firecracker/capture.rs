//! Saving a paused machine.
//!
//! Firecracker itself writes the pages, into a memfd that the machine keeps: its device threads go on while the CPUs
//! stand still, so only what it writes in one go with the state fits the state. It writes those that changed since the
//! last time over what it has written before, so the memfd always holds all that the guest has written.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use memory::{Draft, Image, ImageError, page_count};

use super::calls::{self, Place};
use super::layout::{SAVED_RAM, SAVED_RAM_FD};
use super::vm::{CALL_DEADLINE, FirecrackerVm, ram_descriptor};
use crate::machine::{Base, MAX_LAYERS, STATE_PART, in_place};
use crate::pages::{FileSource, Overlay};
use crate::{Captured, Snapshots, Vm, VmStatus, VmmError};

/// Saving copies all that the guest has written into fresh memory in one call. The slowest host copies this much a second;
/// an idle one 1.5 GiB.
const SLOWEST_SAVE: u64 = 64 << 20;

/// What `st_blocks` counts.
const BLOCK_BYTES: u64 = 512;

#[async_trait]
impl Snapshots for FirecrackerVm {
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
            let deadline = save_deadline(self.record().machine.ram_bytes);
            self.call_within(deadline, &calls::save(self.place()))
                .await?;
            self.connections_ended();
            in_place(|| {
                self.move_state(draft)?;
                self.save_ram(draft)
            })
        };
        let captured = captured.await;
        if captured.is_err() {
            self.captured.store(false, Ordering::Release);
        }
        captured
    }
}

impl FirecrackerVm {
    fn place(&self) -> Place {
        match self.record().jail_uid {
            Some(_) => Place::Jail,
            None => Place::Host,
        }
    }

    fn move_state(&self, draft: &Draft) -> Result<(), VmmError> {
        let (part, state) = (self.run_dir().join(STATE_PART), draft.state_path());
        match self.place() {
            Place::Host => match fs::rename(&part, &state) {
                Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
                renamed => return renamed.map_err(VmmError::io("rename", &part)),
            },
            Place::Jail => {}
        }
        self.files()
            .read(STATE_PART)
            .and_then(|mut from| io::copy(&mut from, &mut File::create_new(&state)?))
            .map(drop)
            .map_err(VmmError::io("copy", &part))
    }

    fn save_ram(&self, draft: &mut Draft) -> Result<Captured, VmmError> {
        let ram_bytes = self.record().machine.ram_bytes;
        let written = source(self.open_saved(), self.run_dir())?;
        let (new_pages, linked_layers) = match &self.record().base {
            Some(base) => self.save_over(base, written, draft, ram_bytes)?,
            None => {
                let pages = match self.open_ram() {
                    // A booted machine has written all it has.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        draft.write_layer(ram_bytes, &written)?.pages
                    }
                    opened => {
                        let whole = Overlay::new(source(opened, self.run_dir())?, written);
                        draft.write_layer(ram_bytes, &whole)?.pages
                    }
                };
                (pages, 0)
            }
        };
        Ok(Captured {
            machine: self.record().machine.clone(),
            new_pages,
            linked_layers,
        })
    }

    /// RAM over an image: what the machine has written, on top of the image's layers; or all of it if there would be
    /// too many layers, or most of the base is hidden anyway.
    fn save_over(
        &self,
        base: &Base,
        written: FileSource,
        draft: &mut Draft,
        ram_bytes: u64,
    ) -> Result<(u64, usize), VmmError> {
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
        if base.layers < MAX_LAYERS
            && page_count(memory::PageSource::runs(&written)) <= below_pages / 2
        {
            for layer in below {
                draft.link_layer(&image, &layer.id)?;
            }
            return Ok((draft.write_layer(ram_bytes, &written)?.pages, base.layers));
        }
        // A machine on a pager maps nothing; the image is loaded for this.
        let loaded = match self.loaded() {
            Some(loaded) => std::sync::Arc::clone(loaded),
            None => self.loader.load(&image, base.layers)?,
        };
        let file = loaded.as_fd().try_clone_to_owned().map(File::from);
        let whole = Overlay::new(source(file, &base.image_dir)?, written);
        Ok((draft.write_layer(ram_bytes, &whole)?.pages, 0))
    }

    /// The memfd that the machine maps; `NotFound` if it maps none.
    pub(super) fn open_ram(&self) -> io::Result<File> {
        let file = File::open(self.descriptor(ram_descriptor(self.record())))?;
        // Standard input that is nothing is no file.
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    /// What Firecracker has saved so far.
    fn open_saved(&self) -> io::Result<File> {
        match self.place() {
            Place::Host => File::open(self.descriptor(SAVED_RAM_FD)),
            Place::Jail => self.files().read(SAVED_RAM),
        }
    }

    /// Memory that it takes; no mapping of the process shows it.
    pub(super) fn saved_bytes(&self) -> u64 {
        let saved = self.open_saved().and_then(|file| file.metadata());
        saved.map_or(0, |saved| saved.blocks() * BLOCK_BYTES)
    }

    /// A descriptor of the process, as this one can open it.
    fn descriptor(&self, fd: i32) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{fd}", self.process_ref().id().pid))
    }
}

fn save_deadline(ram_bytes: u64) -> Duration {
    CALL_DEADLINE + Duration::from_secs(ram_bytes / SLOWEST_SAVE)
}

fn source(file: io::Result<File>, path: &Path) -> Result<FileSource, VmmError> {
    file.and_then(FileSource::open)
        .map_err(VmmError::io("read", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 32 GiB take 20 s on a host that has nothing else to do.
    #[test]
    fn the_time_to_save_grows_with_ram() {
        assert!(save_deadline(32 << 30) > Duration::from_secs(400));
        assert!(save_deadline(128 << 20) < Duration::from_secs(20));
    }
}
