//! Whether RAM that somebody else filled is what an image says.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use crate::digest::is_zero;
use crate::error::ImageError;
use crate::image::Image;
use crate::layer;
use crate::manifest::LayerRecord;
use crate::ram::data_runs;
use crate::runs::PAGE_BYTES;

/// Whether the memfd `ram` holds `layers` of `image`, byte for byte, and zeros elsewhere. It must be sealed, so that
/// what was read here stays, and have the size of the image's RAM. The layers are verified on the way.
pub(crate) fn holds(
    ram: BorrowedFd<'_>,
    image: &Image,
    layers: &[LayerRecord],
) -> Result<bool, ImageError> {
    let failed = || ImageError::io("compare RAM with", image.dir());
    let ram = ram.try_clone_to_owned().map(File::from).map_err(failed())?;
    let pages = image.manifest().machine.ram_bytes / PAGE_BYTES as u64;
    let mut seen = Pages::new(pages);
    let mut same = true;
    let mut found = Vec::new();
    // The newest first: a page of it hides those of the layers below.
    for record in layers.iter().rev() {
        layer::read_pages(&mut image.layer(record)?, |first, wanted| {
            found.resize(wanted.len(), 0);
            ram.read_exact_at(&mut found, first * PAGE_BYTES as u64)?;
            let pairs = wanted
                .chunks_exact(PAGE_BYTES)
                .zip(found.chunks_exact(PAGE_BYTES));
            for (page, (wanted, found)) in (first..).zip(pairs) {
                same &= !seen.insert(page) || wanted == found;
            }
            Ok(())
        })?;
        if !same {
            return Ok(false);
        }
    }
    others_are_zero(&ram, &seen).map_err(failed())
}

fn others_are_zero(ram: &File, seen: &Pages) -> io::Result<bool> {
    let mut bytes = vec![0; PAGE_BYTES];
    for run in data_runs(ram)? {
        for page in run.first..run.end() {
            if seen.has(page) {
                continue;
            }
            ram.read_exact_at(&mut bytes, page * PAGE_BYTES as u64)?;
            if !is_zero(&bytes) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// A set of page numbers.
struct Pages(Vec<u64>);

impl Pages {
    fn new(pages: u64) -> Self {
        // Pages of a file that fits in memory.
        Self(vec![0; pages.div_ceil(64) as usize])
    }

    fn has(&self, page: u64) -> bool {
        self.0
            .get((page / 64) as usize)
            .is_some_and(|word| word & (1 << (page % 64)) != 0)
    }

    /// True if it was not in the set.
    fn insert(&mut self, page: u64) -> bool {
        let new = !self.has(page);
        if let Some(word) = self.0.get_mut((page / 64) as usize) {
            *word |= 1 << (page % 64);
        }
        new
    }
}
