//! RAM through layers, byte by byte against a plain copy of it.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use memory::{Encoding, Image, LoadedRam, Loader, PAGE_BYTES};
use proptest::prelude::*;
use support::{RAM_PAGES, Ram, page_of, sample, write_image};

fn read_all(ram: impl AsFd) -> Vec<u8> {
    let file = File::from(ram.as_fd().try_clone_to_owned().unwrap());
    let mut bytes = vec![0; RAM_PAGES as usize * PAGE_BYTES];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn encoding() -> impl Strategy<Value = Encoding> {
    prop_oneof![
        Just(Encoding::Packed),
        Just(Encoding::Flat),
        Just(Encoding::Zstd)
    ]
}

fn layer() -> impl Strategy<Value = Vec<(u64, u8)>> {
    // Seed 0 is a zero page: dropped from the first layer, kept in later ones.
    let piece = (0..RAM_PAGES, 1_u64..300, 0_u8..4);
    prop::collection::vec(piece, 0..4).prop_map(|pieces| {
        let page = |(first, count, seed): (u64, u64, u8)| {
            (first..RAM_PAGES.min(first + count)).map(move |page| (page, seed))
        };
        pieces.into_iter().flat_map(page).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_newest_page_counts(layers in prop::collection::vec((layer(), encoding()), 1..5)) {
        let dir = tempfile::tempdir().unwrap();
        let ram_bytes = RAM_PAGES * PAGE_BYTES as u64;
        let image = write_image(&dir.path().join("image"), |draft| {
            for (layer, encoding) in &layers {
                draft.write_layer_as(*encoding, ram_bytes, &Ram::new(layer.iter().copied())).unwrap();
            }
            std::fs::write(draft.state_path(), "state").unwrap();
        });
        let loader = Loader::default();
        let mut wanted = vec![0; RAM_PAGES as usize * PAGE_BYTES];
        for (position, (layer, _)) in layers.iter().enumerate() {
            for (page, seed) in layer {
                let start = *page as usize * PAGE_BYTES;
                wanted[start..start + PAGE_BYTES].copy_from_slice(&page_of(*seed));
            }
            let loaded = loader.load(&image, position + 1).unwrap();
            prop_assert!(read_all(&*loaded) == wanted, "RAM of the first {} layers differs", position + 1);
        }
        prop_assert!(read_all(loader.copy(&image).unwrap()) == wanted, "the copy differs");
        image.verify(loader.verified()).unwrap();
    }
}

#[test]
fn zero_pages_are_dropped_from_the_first_layer_only() {
    let dir = tempfile::tempdir().unwrap();
    let ram_bytes = RAM_PAGES * PAGE_BYTES as u64;
    let image = write_image(&dir.path().join("image"), |draft| {
        let full = draft
            .write_layer(ram_bytes, &Ram::new([(0, 1), (1, 0), (2, 2)]))
            .unwrap();
        assert_eq!(full.pages, 2);
        let diff = draft.write_layer(ram_bytes, &Ram::new([(2, 0)])).unwrap();
        assert_eq!(diff.pages, 1);
        std::fs::write(draft.state_path(), "state").unwrap();
    });
    let loaded = Loader::default().load(&image, 2).unwrap();
    assert!(
        read_all(&*loaded)[2 * PAGE_BYTES..]
            .iter()
            .all(|byte| *byte == 0)
    );
}

/// What a standby writes: plain below and compressed above, or the other way round.
#[test]
fn a_draft_compresses_what_it_writes_and_links_the_rest_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let ram_bytes = RAM_PAGES * PAGE_BYTES as u64;
    let write = |name: &str, level: Option<i32>, below: Option<&Image>, first: u64| {
        write_image(&dir.path().join(name), |draft| {
            if let Some(level) = level {
                draft.compress(level);
            }
            if let Some(below) = below {
                draft
                    .link_layer(below, &below.manifest().layers[0].id)
                    .unwrap();
            }
            let pages = (first..first + 200).map(|page| (page, 7));
            draft.write_layer(ram_bytes, &Ram::new(pages)).unwrap();
            std::fs::write(draft.state_path(), "state").unwrap();
        })
    };
    let (plain, small) = (
        write("plain", None, None, 0),
        write("small", Some(19), None, 0),
    );
    let layer = 200 * PAGE_BYTES as u64;
    for (name, below, level, compressed) in [
        ("a", &plain, Some(1), 1),
        ("b", &small, None, 1),
        ("c", &small, Some(1), 2),
    ] {
        let image = write(name, level, Some(below), 150);
        let stored = image.stored_ram().unwrap();
        assert_eq!(
            (stored.layers, stored.compressed_layers),
            (2, compressed),
            "{name}"
        );
        assert_eq!(stored.ram_bytes, 2 * layer);
        assert!(
            stored.stored_bytes < layer + layer / 4,
            "{name}: {stored:?}"
        );
        let loaded = read_all(&*Loader::default().load(&image, 2).unwrap());
        for page in 0..RAM_PAGES as usize {
            let seed = if page < 350 { 7 } else { 0 };
            assert!(
                loaded[page * PAGE_BYTES..][..PAGE_BYTES] == page_of(seed),
                "{name}: page {page}"
            );
        }
    }
    let stored = plain.stored_ram().unwrap();
    assert_eq!((stored.compressed_layers, stored.stored_bytes), (0, layer));
}

#[test]
fn many_forks_share_one_copy_and_it_goes_with_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let image = sample(dir.path());
    let loader = Loader::default();
    let loaded: Vec<Arc<LoadedRam>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| loader.load(&image, 2).unwrap()))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(loaded.iter().all(|ram| Arc::ptr_eq(ram, &loaded[0])));
    assert!(loaded[0].resident_bytes().unwrap() >= 300 * PAGE_BYTES as u64);
    // Another directory with the same bytes is the same RAM.
    let (linked, _) = image.link_into(&dir.path().join("fork")).unwrap();
    assert!(Arc::ptr_eq(&loader.load(&linked, 2).unwrap(), &loaded[0]));
    assert!(loader.loaded(&image, 1).unwrap().is_none());
    drop(loaded);
    assert!(loader.loaded(&image, 2).unwrap().is_none());
}

#[test]
fn loaded_ram_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let loaded = Loader::default().load(&sample(dir.path()), 2).unwrap();
    let file = File::from(loaded.as_fd().try_clone_to_owned().unwrap());
    assert!(file.write_all_at(b"x", 0).is_err());
    assert!(file.set_len(1).is_err());
}

/// A sealed memfd with the name that RAM of `key` has, as a VMM that was taken over could make it.
fn forged(key: &str, bytes: &[u8]) -> File {
    use rustix::fs::{MemfdFlags, SealFlags};
    let fd = rustix::fs::memfd_create(key, MemfdFlags::ALLOW_SEALING).unwrap();
    let file = File::from(fd);
    file.write_all_at(bytes, 0).unwrap();
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&file, seals).unwrap();
    file
}

#[test]
fn what_a_vmm_gives_under_the_name_of_an_image_is_compared_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let image = sample(dir.path());
    let honest = Loader::default().load(&image, 2).unwrap();
    let good = read_all(&honest);
    let path = |file: &dyn std::os::fd::AsRawFd| format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = std::fs::read_link(path(&honest.as_fd())).unwrap();
    let name = link.to_str().unwrap();
    let name = name
        .trim_start_matches("/memfd:")
        .trim_end_matches(" (deleted)");
    let changed = |page: usize| {
        let mut bytes = good.clone();
        bytes[page * PAGE_BYTES + 17] ^= 1;
        bytes
    };
    // In the first layer, in the second, in no layer, and of another size.
    let wrong = [
        changed(150),
        changed(392),
        changed(3),
        good[..good.len() - PAGE_BYTES].to_vec(),
    ];
    for bytes in wrong {
        let file = forged(name, &bytes);
        let loader = Loader::default();
        let adopted = loader.adopt(path(&file).as_ref()).unwrap().unwrap();
        assert!(loader.loaded(&image, 2).unwrap().is_none());
        let loaded = loader.load(&image, 2).unwrap();
        assert!(!Arc::ptr_eq(&loaded, &adopted), "forged RAM is shared");
        assert!(read_all(&loaded) == good);
        assert!(Arc::ptr_eq(&loader.load(&image, 2).unwrap(), &loaded));
    }
    let file = forged(name, &good);
    let loader = Loader::default();
    let adopted = loader.adopt(path(&file).as_ref()).unwrap().unwrap();
    assert!(Arc::ptr_eq(&loader.load(&image, 2).unwrap(), &adopted));
}

#[test]
fn another_process_of_the_daemon_finds_loaded_ram_again() {
    let dir = tempfile::tempdir().unwrap();
    let image = sample(dir.path());
    let first = Loader::default().load(&image, 2).unwrap();
    let descriptor = format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&first.as_fd())
    );
    let later = Loader::default();
    let adopted = later
        .adopt(descriptor.as_ref())
        .unwrap()
        .expect("it is sealed RAM");
    assert_eq!(adopted.key(), first.key());
    assert!(
        Arc::ptr_eq(&later.load(&image, 2).unwrap(), &adopted),
        "it was copied again"
    );
    assert!(later.adopt("/proc/self/exe".as_ref()).unwrap().is_none());
}

#[test]
fn an_image_needs_its_layers() {
    let dir = tempfile::tempdir().unwrap();
    let image: Image = sample(dir.path());
    for count in [0, 3] {
        assert!(Loader::default().load(&image, count).is_err());
    }
}
