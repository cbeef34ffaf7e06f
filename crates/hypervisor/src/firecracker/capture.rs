//! Saving a paused machine.
//!
//! Firecracker itself writes the pages, into a memfd that the machine keeps: its device threads go on while the CPUs
//! stand still, so only what it writes in one go with the state fits the state. It writes those that changed since the
//! last time over what it has written before, so the memfd always holds all that the guest has written.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use memory::{Draft, Image, ImageError, page_count};

use super::calls::{self, Pages, Place};
use super::layout::{SAVED_RAM, SAVED_RAM_FD};
use super::shmem::shmem_keeps_pages_apart;
use super::vm::{CALL_DEADLINE, FirecrackerVm, ram_descriptor};
use crate::machine::{Base, MAX_LAYERS, STATE_PART, in_place};
use crate::pages::{FileSource, Overlay};
use crate::{Captured, Snapshots, Vm, VmStatus, VmmError};

/// Saving copies all that the guest has written into fresh memory in one call. The slowest host copies this much a second;
/// an idle one 1.5 GiB.
const SLOWEST_SAVE: u64 = 64 << 20;

/// Most device state that is taken from a jail; real ones have 20 KB and some for each CPU.
const MAX_STATE_BYTES: u64 = 16 << 20;

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
            // Where a file in memory does not tell what was written to it, all is: larger and slower, and right.
            let pages = match shmem_keeps_pages_apart() {
                true => Pages::Changed,
                false => Pages::All,
            };
            let save = calls::save(self.place(), pages);
            let saved = self.call_within(deadline, &save).await;
            // What fails may have come as far as the reset of the guest's connections. Nobody would tell who only
            // reads, and who speaks connects again.
            self.connections_ended();
            saved?;
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
            .and_then(|from| copy_state(from, &mut File::create_new(&state)?))
            .map_err(VmmError::io("copy", &part))
    }

    fn save_ram(&self, draft: &mut Draft) -> Result<Captured, VmmError> {
        let ram_bytes = self.record().machine.ram_bytes;
        let written = source(self.open_saved(), ram_bytes, self.run_dir())?;
        let (new_pages, linked_layers) = match &self.record().base {
            Some(base) => self.save_over(base, written, draft, ram_bytes)?,
            None => {
                let pages = match self.open_ram() {
                    // A booted machine has written all it has.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        draft.write_layer(ram_bytes, &written)?.pages
                    }
                    opened => {
                        let whole =
                            Overlay::new(source(opened, ram_bytes, self.run_dir())?, written);
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
        let whole = Overlay::new(source(file, ram_bytes, &base.image_dir)?, written);
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

/// RAM of a machine in a file. That of a jailed machine is the machine's own: there is no more of it than RAM, or an
/// image would be written that nothing can be restored from.
fn source(file: io::Result<File>, ram_bytes: u64, path: &Path) -> Result<FileSource, VmmError> {
    let fits = |file: File| match file.metadata()?.len() <= ram_bytes {
        true => FileSource::open(file),
        false => Err(invalid("more memory was saved than the machine has")),
    };
    file.and_then(fits).map_err(VmmError::io("read", path))
}

/// Copies device state out of a jail. What is there is the machine's own, and could be a hole without end.
fn copy_state(from: impl Read, to: &mut impl Write) -> io::Result<()> {
    let copied = io::copy(&mut from.take(MAX_STATE_BYTES + 1), to)?;
    if copied > MAX_STATE_BYTES {
        return Err(invalid("the device state is larger than any"));
    }
    Ok(())
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use memory::PageSource as _;

    /// A machine that was taken over writes what it likes, in its jail.
    #[test]
    fn what_is_saved_has_bounds() {
        let mut copy = Vec::new();
        copy_state(&b"state"[..], &mut copy).unwrap();
        assert_eq!(copy, b"state");
        let error = copy_state(io::repeat(0), &mut io::sink()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);

        let saved = |bytes| {
            let file = tempfile::tempfile()?;
            file.set_len(bytes)?;
            Ok(file)
        };
        let ram = source(saved(1 << 20), 1 << 20, Path::new("saved")).unwrap();
        assert!(ram.runs().is_empty());
        let more = source(saved(1 << 40), 1 << 20, Path::new("saved"));
        assert!(more.is_err_and(|error| error.to_string().contains("saved")));
    }

    /// 32 GiB take 20 s on a host that has nothing else to do.
    #[test]
    fn the_time_to_save_grows_with_ram() {
        assert!(save_deadline(32 << 30) > Duration::from_secs(400));
        assert!(save_deadline(128 << 20) < Duration::from_secs(20));
    }
}
