//! RAM of fake guests as real memory images.
//!
//! RAM holds the length of what the guest saved (8 bytes) and then its bytes; the rest is zero. Device state is a
//! checksum of that, so RAM and state that do not belong together are noticed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use memory::{Draft, Image, Loader, PAGE_BYTES, PageSource, Run, merge_runs};

use super::machine::{Base, Machine};
use crate::{Captured, VmmError};

/// Marks device state of this driver.
const STATE_PREFIX: &str = "fake state 1\n";

const PAGE: u64 = PAGE_BYTES as u64;

pub(super) fn capture(
    machine: &Machine,
    draft: &mut Draft,
    loader: &Loader,
) -> Result<Captured, VmmError> {
    let ram_bytes = machine.facts.ram_bytes;
    let saved = machine.guest.save();
    if saved.len() as u64 + 8 > ram_bytes {
        return Err(VmmError::unusable("the guest does not fit its RAM"));
    }
    let mut ram = (saved.len() as u64).to_le_bytes().to_vec();
    ram.extend_from_slice(&saved);
    let state = draft.state_path();
    std::fs::write(&state, state_of(&saved)).map_err(VmmError::io("write", &state))?;
    let mut linked_layers = 0;
    let pages = match &machine.base {
        None => pages_of(&ram),
        Some(base) => {
            let image = Image::open(&base.image_dir)?;
            for layer in &image.manifest().layers[..base.layers] {
                draft.link_layer(&image, &layer.id)?;
                linked_layers += 1;
            }
            differing(&image, base, loader, &ram)?
        }
    };
    let new_pages = draft.write_layer(ram_bytes, &Pages::new(pages))?.pages;
    Ok(Captured {
        machine: machine.facts.clone(),
        new_pages,
        linked_layers,
    })
}

/// What the guest saved, out of the RAM in `fd`; refused if it does not belong to the image's device state.
pub(super) fn contents(image: &Image, fd: impl AsFd) -> Result<Vec<u8>, VmmError> {
    let failed = || VmmError::io("read the RAM of", image.dir());
    let file = File::from(fd.as_fd().try_clone_to_owned().map_err(failed())?);
    let mut length = [0; 8];
    file.read_exact_at(&mut length, 0).map_err(failed())?;
    let length = u64::from_le_bytes(length);
    if length > image.manifest().machine.ram_bytes {
        return Err(VmmError::Inconsistent {
            complaint: "length of the saved guest".into(),
        });
    }
    // Bounded by the size of RAM, which fits memory because the memfd does.
    let mut saved = vec![0; length as usize];
    file.read_exact_at(&mut saved, 8).map_err(failed())?;
    let path = image.state_path();
    let state = std::fs::read_to_string(&path).map_err(VmmError::io("read", &path))?;
    if state == state_of(&saved) {
        Ok(saved)
    } else {
        Err(VmmError::Inconsistent {
            complaint: "RAM and device state do not belong together".into(),
        })
    }
}

fn state_of(saved: &[u8]) -> String {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    hasher.write(saved);
    format!("{STATE_PREFIX}{:016x}\n", hasher.finish())
}

fn pages_of(ram: &[u8]) -> BTreeMap<u64, Vec<u8>> {
    let page = |(number, bytes): (usize, &[u8])| {
        let mut page = bytes.to_vec();
        page.resize(PAGE_BYTES, 0);
        (number as u64, page)
    };
    ram.chunks(PAGE_BYTES).enumerate().map(page).collect()
}

/// Pages of `ram` that are not the same in the layers below; pages that `ram` no longer has become zero.
fn differing(
    image: &Image,
    base: &Base,
    loader: &Loader,
    ram: &[u8],
) -> Result<BTreeMap<u64, Vec<u8>>, VmmError> {
    let below = loader.load(image, base.layers)?;
    let failed = || VmmError::io("read the RAM of", image.dir());
    let file = File::from(below.as_fd().try_clone_to_owned().map_err(failed())?);
    let mut pages = pages_of(ram);
    for run in memory::data_runs(&below).map_err(failed())? {
        for number in run.first..run.end() {
            pages.entry(number).or_insert_with(|| vec![0; PAGE_BYTES]);
        }
    }
    let mut old = vec![0; PAGE_BYTES];
    let mut same = Vec::new();
    for (number, page) in &pages {
        file.read_exact_at(&mut old, number * PAGE)
            .map_err(failed())?;
        if *page == old {
            same.push(*number);
        }
    }
    for number in same {
        pages.remove(&number);
    }
    Ok(pages)
}

struct Pages {
    pages: BTreeMap<u64, Vec<u8>>,
    runs: Vec<Run>,
}

impl Pages {
    fn new(pages: BTreeMap<u64, Vec<u8>>) -> Self {
        let runs = merge_runs(
            pages
                .keys()
                .map(|first| Run {
                    first: *first,
                    count: 1,
                })
                .collect(),
        );
        Self { pages, runs }
    }
}

impl PageSource for Pages {
    fn runs(&self) -> &[Run] {
        &self.runs
    }

    fn read(&self, first: u64, buffer: &mut [u8]) -> io::Result<()> {
        for (number, target) in (first..).zip(buffer.chunks_mut(PAGE_BYTES)) {
            let page = self
                .pages
                .get(&number)
                .ok_or_else(|| io::Error::other("page outside the runs"))?;
            target.copy_from_slice(page);
        }
        Ok(())
    }
}
