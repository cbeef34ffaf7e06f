//! Filling pages, whatever the kernel answers.

use std::io;

use memory::{PAGE_BYTES, Run};

use super::{Failure, GuestMemory, Served, Vm};
use crate::plan::{self, Fill};
use crate::source::Source;
use crate::sys::{Bytes, Stop};

impl Vm {
    pub(super) fn fill(
        &mut self,
        fill: Fill,
        memory: &impl GuestMemory,
        source: &mut impl Source,
    ) -> Result<Served, Failure> {
        // A fill never crosses regions.
        let run = fill.run();
        let region = self
            .regions
            .region_of(run.first)
            .ok_or(Failure::Outside(run.first))?;
        let unit = region.unit_pages();
        let mut at = run.first;
        if let Fill::Compose(_) = fill {
            self.compose(run, source)?;
        }
        while at < run.end() {
            let address = region.address + (at - region.run().first) * PAGE_BYTES as u64;
            let done = at - run.first;
            let filled = match fill {
                Fill::Zero(_) => memory.zero(address, (run.end() - at) * PAGE_BYTES as u64),
                Fill::Copy(mut extent) => {
                    extent.run.first += done;
                    extent.run.count -= done;
                    extent.position += done;
                    memory.copy(address, &source.read(extent)?)
                }
                Fill::Compose(_) => {
                    // `done` is less than the pages of the buffer.
                    memory.copy(
                        address,
                        &Bytes::from(&self.buffer[..]).after(done as usize * PAGE_BYTES),
                    )
                }
            };
            let pages = filled.bytes / PAGE_BYTES as u64;
            match fill {
                Fill::Zero(_) => self.stats.zeroed_bytes += filled.bytes,
                Fill::Copy(_) | Fill::Compose(_) => self.stats.copied_bytes += filled.bytes,
            }
            if pages > 0 {
                self.state.present().set(Run {
                    first: at,
                    count: pages,
                });
                at += pages;
            }
            match filled.stop {
                // Without progress and without a reason this would never end.
                None if pages == 0 => return Err(Failure::Memory(io::ErrorKind::WriteZero.into())),
                None => {}
                Some(Stop::Exists) => {
                    // Somebody was faster. Whoever waits may have come after that, so it must be woken.
                    memory
                        .wake(address, region.page_bytes)
                        .map_err(Failure::Memory)?;
                    self.state.present().set(Run {
                        first: at,
                        count: unit,
                    });
                    self.stats.already_present += unit;
                    at += unit;
                }
                Some(Stop::Busy | Stop::NoMemory) => return Ok(Served::Busy),
                Some(Stop::Gone) => return Ok(Served::Gone),
                Some(Stop::Unreadable) => return Err(Failure::Unreadable),
                Some(Stop::Refused(error)) => return Err(Failure::Memory(error)),
            }
        }
        Ok(Served::Done)
    }

    /// Puts the pages of `run` together in the buffer.
    fn compose(&mut self, run: Run, source: &mut impl Source) -> Result<(), Failure> {
        // A unit is at most 1 GiB.
        let bytes = |pages: u64| pages as usize * PAGE_BYTES;
        self.buffer.clear();
        self.buffer.resize(bytes(run.count), 0);
        for extent in plan::compose(&self.layout, &self.state, run) {
            let start = bytes(extent.run.first - run.first);
            let target = &mut self.buffer[start..start + bytes(extent.run.count)];
            source.read_into(extent, target)?;
        }
        Ok(())
    }
}
