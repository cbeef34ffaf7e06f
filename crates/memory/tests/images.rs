//! Images on disk: written once, complete or refused, owned by every directory that links them.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use memory::{
    DiskFormat, Draft, How, Image, ImageError, ImageId, Loader, Manifest, NewDisk, Owned,
    PAGE_BYTES, Verified,
};
use support::{RAM_PAGES, Ram, facts, sample, write_image};

#[test]
fn an_unfinished_image_does_not_exist() {
    let dir = tempfile::tempdir().unwrap();
    let image_dir = dir.path().join("image");
    let mut draft =
        Draft::create(&image_dir, ImageId::random().unwrap(), &Verified::default()).unwrap();
    draft
        .write_layer(RAM_PAGES * PAGE_BYTES as u64, &Ram::new([(3, 7)]))
        .unwrap();
    fs::write(draft.state_path(), "state").unwrap();
    assert!(matches!(
        Image::open(&image_dir),
        Err(ImageError::NotComplete { .. })
    ));
    draft.abandon();
    assert!(!image_dir.exists());
}

#[test]
fn finished_files_are_read_only_and_an_existing_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let image = sample(dir.path());
    for entry in fs::read_dir(image.dir()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o444, "{:?}", entry.file_name());
    }
    assert!(
        Draft::create(
            image.dir(),
            ImageId::random().unwrap(),
            &Verified::default()
        )
        .is_err()
    );
    image.verify(&Verified::default()).unwrap();
    assert_eq!(
        Image::open(image.dir()).unwrap().manifest(),
        image.manifest()
    );
}

#[test]
fn a_draft_without_its_parts_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let image_dir = dir.path().join("image");
    let draft =
        Draft::create(&image_dir, ImageId::random().unwrap(), &Verified::default()).unwrap();
    assert!(matches!(
        draft.finish(facts()),
        Err(ImageError::Draft { .. })
    ));
    assert!(!image_dir.exists());
}

/// Every bit of every file counts: any flipped one is refused with an error that names the file.
#[test]
fn damage_is_refused_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let image = sample(dir.path());
    for entry in fs::read_dir(image.dir()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let path = image.dir().join(&name);
        let good = fs::read(&path).unwrap();
        let step = (good.len() / 97).max(1);
        for at in (0..good.len()).step_by(step) {
            let mut bad = good.clone();
            bad[at] ^= 4;
            replace(&path, &bad);
            let verdict =
                Image::open(image.dir()).and_then(|image| image.verify(&Verified::default()));
            let error = verdict.expect_err(&format!("byte {at} of {name}"));
            assert!(error.is_corruption(), "{error}");
            assert!(
                error.to_string().contains(&name),
                "{error} does not name {name}"
            );
        }
        replace(&path, &good[..good.len() - 1]);
        let verdict = Image::open(image.dir()).and_then(|image| image.verify(&Verified::default()));
        assert!(
            verdict.is_err_and(|error| error.is_corruption()),
            "{name} was cut short unnoticed"
        );
        fs::remove_file(&path).unwrap();
        let verdict = Image::open(image.dir()).and_then(|image| image.verify(&Verified::default()));
        assert!(
            verdict.is_err_and(|error| error.is_corruption()),
            "{name} was removed unnoticed"
        );
        replace(&path, &good);
    }
    image.verify(&Verified::default()).unwrap();
}

/// The loader checks what it loads by itself.
#[test]
fn damaged_ram_is_never_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let image = sample(dir.path());
    for suffix in ["pages", "idx"] {
        let name = format!("ram-{}.{suffix}", image.manifest().layers[1].id);
        let path = image.dir().join(&name);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 1;
        replace(&path, &bad);
        let error = Loader::default().load(&image, 2).unwrap_err();
        assert!(error.to_string().contains(&name), "{error}");
        replace(&path, &good);
    }
    Loader::default().load(&image, 2).unwrap();
}

#[test]
fn what_is_known_is_not_read_again_and_a_change_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let image = sample(dir.path());
    let verified = Verified::default();
    wait_until_settled(&image);
    image.verify(&verified).unwrap();
    let path = image.state_path();
    let times = fs::metadata(&path).unwrap().modified().unwrap();
    // Same length and time: only reading could tell, and nothing is read.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, "STATE of devices").unwrap();
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(times)
        .unwrap();
    image.verify(&verified).unwrap();
    fs::write(&path, "State of devices").unwrap();
    assert!(image.verify(&verified).unwrap_err().is_corruption());
}

fn wait_until_settled(image: &Image) {
    let modified = fs::metadata(image.dir().join("manifest.json"))
        .unwrap()
        .modified()
        .unwrap();
    while modified.elapsed().unwrap() < std::time::Duration::from_millis(30) {
        std::thread::yield_now();
    }
}

#[test]
fn every_owner_keeps_the_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let image = sample(dir.path());
    let (linked, owned) = image.link_into(&dir.path().join("fork")).unwrap();
    assert_eq!(owned, Owned::Linked);
    let inode = |image: &Image| fs::metadata(image.disk_path(0)).unwrap().ino();
    assert_eq!(inode(&image), inode(&linked));
    image.remove().unwrap();
    linked.verify(&Verified::default()).unwrap();
    assert_eq!(
        Image::open(linked.dir()).unwrap().manifest(),
        linked.manifest()
    );
}

#[test]
fn across_file_systems_it_is_copied() {
    let (here, there) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir_in("/dev/shm"),
    );
    let Ok(there) = there else {
        println!("skipped: there is no second file system");
        return;
    };
    if fs::metadata(here.path()).unwrap().dev() == fs::metadata(there.path()).unwrap().dev() {
        println!("skipped: there is no second file system");
        return;
    }
    let image = sample(here.path());
    let (copied, owned) = image.link_into(&there.path().join("fork")).unwrap();
    assert_eq!(owned, Owned::Copied);
    image.remove().unwrap();
    copied.verify(&Verified::default()).unwrap();
    let mode = fs::metadata(copied.state_path())
        .unwrap()
        .permissions()
        .mode()
        & 0o777;
    assert_eq!(mode, 0o444);
}

#[test]
fn a_disk_gets_in_as_it_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let image = write_image(&dir.path().join("image"), |draft| {
        for (name, how) in [
            ("link", How::Link),
            ("copy", How::Copy),
            ("move", How::Move),
        ] {
            let source = dir.path().join(name);
            fs::write(&source, name).unwrap();
            let disk = NewDisk {
                source,
                format: DiskFormat::Raw,
                virtual_bytes: 4096,
                how,
            };
            draft.add_disk(&disk).unwrap();
        }
    });
    for (position, name) in ["link", "copy", "move"].into_iter().enumerate() {
        assert_eq!(fs::read_to_string(image.disk_path(position)).unwrap(), name);
    }
    let inode = |path: &std::path::Path| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&dir.path().join("link")), inode(&image.disk_path(0)));
    assert_ne!(inode(&dir.path().join("copy")), inode(&image.disk_path(1)));
    assert!(!dir.path().join("move").exists());
}

/// Format 1 as it was first written. Images of users have it; it must be read for ever.
#[test]
fn the_first_format_is_still_read() {
    let dir = tempfile::tempdir().unwrap();
    let golden = include_bytes!("golden/manifest-v1.json");
    fs::write(dir.path().join("manifest.json"), golden).unwrap();
    let image = Image::open(dir.path()).unwrap();
    let manifest: &Manifest = image.manifest();
    assert_eq!(manifest.format, 1);
    assert_eq!(manifest.image_id.as_str(), "imageaaaaaaaaaaaaaaaaaa1");
    assert_eq!(manifest.machine.vmm.version, "7.2.22 (Debian)");
    assert_eq!(manifest.machine.ram_bytes, 268_435_456);
    assert_eq!(manifest.layers.len(), 2);
    assert_eq!(manifest.layers[1].pages, 742);
    assert_eq!(manifest.disks[1].format, DiskFormat::Qcow2);
    assert_eq!(manifest.root.digest, "sha256:aa");
}

#[test]
fn a_later_format_is_refused_by_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = r#"{"format":2,"something":"new"}"#;
    let checksum = blake3::hash(manifest.as_bytes());
    let text = format!(r#"{{"checksum":"{checksum}","manifest":{manifest}}}"#);
    fs::write(dir.path().join("manifest.json"), text).unwrap();
    assert!(matches!(
        Image::open(dir.path()),
        Err(ImageError::Version {
            found: 2,
            supported: 1
        })
    ));
}

fn replace(path: &std::path::Path, bytes: &[u8]) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
        _ => fs::write(path, bytes).unwrap(),
    }
}
