//! Images for tests. Each test program uses a part of this.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use memory::{
    DiskFormat, Draft, How, Image, ImageId, MachineFacts, ManifestFacts, NewDisk, PAGE_BYTES,
    PageSource, Run, Verified, VmmFacts, merge_runs,
};

/// Pages of RAM in test images; a few chunks of 256 pages.
pub(crate) const RAM_PAGES: u64 = 700;

/// RAM given by some pages, each filled with a pattern that starts with one byte.
pub(crate) struct Ram {
    pages: BTreeMap<u64, Vec<u8>>,
    runs: Vec<Run>,
}

impl Ram {
    pub(crate) fn new(pages: impl IntoIterator<Item = (u64, u8)>) -> Self {
        let pages: BTreeMap<u64, Vec<u8>> = pages
            .into_iter()
            .map(|(page, seed)| (page, page_of(seed)))
            .collect();
        let runs = merge_runs(
            pages
                .keys()
                .map(|page| Run {
                    first: *page,
                    count: 1,
                })
                .collect(),
        );
        Self { pages, runs }
    }
}

/// A page that is all zero for seed 0 and different everywhere for others.
pub(crate) fn page_of(seed: u8) -> Vec<u8> {
    (0..PAGE_BYTES)
        .map(|at| seed.wrapping_mul((at % 251) as u8 | 1))
        .collect()
}

impl PageSource for Ram {
    fn runs(&self) -> &[Run] {
        &self.runs
    }

    fn read(&self, first: u64, buffer: &mut [u8]) -> io::Result<()> {
        for (page, target) in (first..).zip(buffer.chunks_mut(PAGE_BYTES)) {
            target.copy_from_slice(&self.pages[&page]);
        }
        Ok(())
    }
}

pub(crate) fn facts() -> ManifestFacts {
    let text = |text: &str| text.to_owned();
    ManifestFacts {
        machine: MachineFacts {
            vmm: VmmFacts {
                name: text("test"),
                version: text("1"),
                accelerator: text("none"),
                machine: text("none"),
                cpu_model: text("none"),
            },
            vcpus: 1,
            ram_bytes: RAM_PAGES * PAGE_BYTES as u64,
            cmdline: text("quiet"),
            kernel_sha256: text("k"),
            initrd_sha256: text("i"),
            root_sha256: text("r"),
            nic: None,
        },
        root_digest: text("sha256:r"),
    }
}

/// An image in `dir`, with what `fill` adds and a state.
pub(crate) fn write_image(dir: &Path, fill: impl FnOnce(&mut Draft)) -> Image {
    let mut draft = Draft::create(dir, ImageId::random().unwrap(), &Verified::default()).unwrap();
    fill(&mut draft);
    if draft.state_path().exists() {
        return draft.finish(facts()).unwrap();
    }
    fs::write(draft.state_path(), "state of devices").unwrap();
    // A fill that wrote no RAM gets some.
    let _ = draft.write_layer(RAM_PAGES * PAGE_BYTES as u64, &Ram::new([(0, 1)]));
    draft.finish(facts()).unwrap()
}

/// Two layers and a disk.
pub(crate) fn sample(dir: &Path) -> Image {
    let disk = dir.join("disk");
    fs::write(&disk, vec![5; 200_000]).unwrap();
    write_image(&dir.join("image"), |draft| {
        let ram_bytes = RAM_PAGES * PAGE_BYTES as u64;
        draft
            .write_layer(ram_bytes, &Ram::new((100..400).map(|page| (page, 3))))
            .unwrap();
        draft
            .write_layer(ram_bytes, &Ram::new((390..399).map(|page| (page, 9))))
            .unwrap();
        fs::write(draft.state_path(), "state of devices").unwrap();
        let disk = NewDisk {
            source: disk,
            format: DiskFormat::Raw,
            virtual_bytes: 200_000,
            how: How::Move,
        };
        draft.add_disk(&disk).unwrap();
    })
}
