//! Images for tests, with every byte of their RAM known.

use std::path::{Path, PathBuf};

use memory::{
    Draft, Encoding, Image, ImageId, MachineFacts, ManifestFacts, PAGE_BYTES, PageSource, Run,
    Verified, VmmFacts,
};

/// Guest RAM byte by byte, and an image of it.
pub(crate) struct Reference {
    pub(crate) bytes: Vec<u8>,
    pub(crate) dir: PathBuf,
}

/// Which pages the next layer holds.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) encoding: Encoding,
    pub(crate) runs: Vec<Run>,
    /// Different for each layer, so that a page of the wrong one is seen.
    pub(crate) seed: u64,
}

impl Layer {
    /// Runs of `run_pages` with gaps of the same size, `skip` pages from the start.
    pub(crate) fn striped(
        encoding: Encoding,
        pages: u64,
        run_pages: u64,
        skip: u64,
        seed: u64,
    ) -> Self {
        let runs = (skip..pages)
            .step_by(2 * run_pages as usize)
            .map(|first| Run {
                first,
                count: run_pages.min(pages - first),
            })
            .collect();
        Self {
            encoding,
            runs,
            seed,
        }
    }

    /// All pages.
    pub(crate) fn whole(encoding: Encoding, pages: u64, seed: u64) -> Self {
        Self {
            encoding,
            runs: vec![Run {
                first: 0,
                count: pages,
            }],
            seed,
        }
    }
}

struct Pages<'a> {
    bytes: &'a [u8],
    runs: &'a [Run],
}

impl PageSource for Pages<'_> {
    fn runs(&self) -> &[Run] {
        self.runs
    }

    fn read(&self, first: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        let start = first as usize * PAGE_BYTES;
        buffer.copy_from_slice(&self.bytes[start..start + buffer.len()]);
        Ok(())
    }
}

/// A page unlike any other; every eighth is easy to compress, and of a later layer one in sixteen is zero, and one
/// is zero but for its last byte.
fn page(seed: u64, number: u64) -> Vec<u8> {
    if seed > 0 && matches!(number % 16, 0 | 5) {
        let mut page = vec![0; PAGE_BYTES];
        if number % 16 == 5 {
            page[PAGE_BYTES - 1] = 1 + (seed + number / 16) as u8 % 255;
        }
        return page;
    }
    let mut state = (seed << 32 | number).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    if number.is_multiple_of(8) {
        return next().to_le_bytes().repeat(PAGE_BYTES / 8);
    }
    (0..PAGE_BYTES / 8)
        .flat_map(|_| next().to_le_bytes())
        .collect()
}

impl Reference {
    /// An image of `pages` pages in the new directory `dir`.
    pub(crate) fn new(dir: &Path, pages: u64, layers: &[Layer]) -> Self {
        let mut bytes = vec![0; pages as usize * PAGE_BYTES];
        let mut draft =
            Draft::create(dir, ImageId::random().unwrap(), &Verified::default()).unwrap();
        for layer in layers {
            for number in layer.runs.iter().flat_map(|run| run.first..run.end()) {
                let start = number as usize * PAGE_BYTES;
                bytes[start..start + PAGE_BYTES].copy_from_slice(&page(layer.seed, number));
            }
            let source = Pages {
                bytes: &bytes,
                runs: &layer.runs,
            };
            let ram_bytes = pages * PAGE_BYTES as u64;
            draft
                .write_layer_as(layer.encoding, ram_bytes, &source)
                .unwrap();
        }
        std::fs::write(draft.state_path(), "state").unwrap();
        draft.finish(facts(pages)).unwrap();
        Self {
            bytes,
            dir: dir.to_path_buf(),
        }
    }

    /// The same image, with bytes that change apart from these.
    pub(crate) fn copy(&self) -> Self {
        Self {
            bytes: self.bytes.clone(),
            dir: self.dir.clone(),
        }
    }

    /// What a guest must answer for these pages.
    pub(crate) fn sum(&self, first: u64, count: u64) -> String {
        let start = first as usize * PAGE_BYTES;
        blake3::hash(&self.bytes[start..start + count as usize * PAGE_BYTES])
            .to_hex()
            .to_string()
    }

    /// From now on these pages are zero.
    pub(crate) fn forget(&mut self, first: u64, count: u64) {
        let start = first as usize * PAGE_BYTES;
        self.bytes[start..start + count as usize * PAGE_BYTES].fill(0);
    }

    /// Flips a bit of a byte of the file of the `layer`-th layer with this ending, at this part of its length.
    pub(crate) fn damage(&self, layer: usize, ending: &str, part: f64) {
        damage_file(&self.path(layer, ending), part);
    }

    /// Takes the last byte of such a file.
    pub(crate) fn cut(&self, layer: usize, ending: &str) {
        let path = self.path(layer, ending);
        let writable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(&path, writable).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    }

    fn path(&self, layer: usize, ending: &str) -> PathBuf {
        let image = Image::open(&self.dir).unwrap();
        let id = &image.manifest().layers[layer].id;
        self.dir.join(format!("ram-{id}.{ending}"))
    }
}

/// Flips a bit in a file.
pub(crate) fn damage_file(path: &Path, part: f64) {
    use std::os::unix::fs::{FileExt, PermissionsExt};
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let at = (file.metadata().unwrap().len() as f64 * part) as u64;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

fn facts(pages: u64) -> ManifestFacts {
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
            ram_bytes: pages * PAGE_BYTES as u64,
            cmdline: text("quiet"),
            kernel_sha256: text("k"),
            initrd_sha256: text("i"),
            root_sha256: text("r"),
            nic: None,
        },
        root_digest: text("sha256:r"),
    }
}
