//! The store itself: what it keeps, finds, removes and cleans up.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use images::{ImageStore, ImportError, Limits, Progress};

use crate::archive::{Archive, Layer, Packing};
use crate::disk::Host;

fn archive() -> Archive {
    Archive::oci(&[Layer::new().file("a", "x").finish()], Packing::Gzip)
}

#[test]
fn a_second_import_finds_the_first_and_disks_are_the_same_bytes_anywhere() {
    let (Some(host), Some(other)) = (Host::new(), Host::new()) else {
        return;
    };
    let first = host.import(&archive()).unwrap();
    assert!(!first.already_present);
    let second = host.import(&archive()).unwrap();
    assert!(second.already_present);
    assert_eq!(second.rootfs_sha256, first.rootfs_sha256);
    assert_eq!(
        host.store.get(&first.digest).unwrap().unwrap().config,
        first.config
    );
    assert_eq!(
        other.import(&archive()).unwrap().rootfs_sha256,
        first.rootfs_sha256
    );
    host.assert_clean();
}

#[test]
fn a_root_disk_cannot_be_written_to_and_survives_reopening() {
    let Some(host) = Host::new() else { return };
    let digest = host.import(&archive()).unwrap().digest;
    let rootfs = host.store.rootfs(&digest).unwrap();
    assert_eq!(
        fs::metadata(&rootfs).unwrap().permissions().mode() & 0o222,
        0
    );
    let reopened = ImageStore::open(&host.path("images")).unwrap();
    assert_eq!(reopened.digests().unwrap(), [digest]);
    assert_eq!(reopened.rootfs(&digest), Some(rootfs));
}

#[test]
fn a_removed_image_is_gone_and_can_be_imported_again() {
    let Some(host) = Host::new() else { return };
    let digest = host.import(&archive()).unwrap().digest;
    assert!(host.store.remove(&digest).unwrap());
    assert!(!host.store.remove(&digest).unwrap());
    assert_eq!(host.store.rootfs(&digest), None);
    assert_eq!(host.store.get(&digest).unwrap(), None);
    assert!(!host.import(&archive()).unwrap().already_present);
    host.assert_clean();
}

#[test]
fn what_a_crashed_import_left_is_removed_at_the_next_start_and_not_before() {
    let Some(host) = Host::new() else { return };
    let leftover = host.path("images").join(".import-crashed/root");
    fs::create_dir_all(&leftover).unwrap();
    // Another store of the same directory is open, so this could be an import at work.
    drop(ImageStore::open(&host.path("images")).unwrap());
    assert!(leftover.exists());
    drop(host.store);
    let dir = leftover.parent().unwrap().parent().unwrap();
    ImageStore::open(dir).unwrap();
    assert!(!leftover.exists());
}

#[test]
fn progress_tells_of_every_layer() {
    let Some(host) = Host::new() else { return };
    let layers = [
        Layer::new().file("a", "1").finish(),
        Layer::new().file("b", "2").finish(),
    ];
    let mut seen = Vec::new();
    let bytes = Archive::oci(&layers, Packing::Gzip).to_tar();
    host.store
        .import(bytes.as_slice(), &Limits::default(), &mut |progress| {
            seen.push(progress);
        })
        .unwrap();
    let layer = |number| Progress::Layer { number, count: 2 };
    assert!(matches!(seen[0], Progress::Read { bytes } if bytes > 0));
    assert_eq!(
        seen[seen.len() - 3..],
        [layer(1), layer(2), Progress::RootDisk]
    );
}

#[test]
fn two_imports_of_the_same_image_at_once_both_succeed() {
    let Some(host) = Host::new() else { return };
    let imported: Vec<_> = std::thread::scope(|scope| {
        let imports: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| host.import(&archive()).unwrap()))
            .collect();
        imports
            .into_iter()
            .map(|import| import.join().unwrap())
            .collect()
    });
    assert_eq!(host.store.digests().unwrap(), [imported[0].digest]);
    host.assert_clean();
}

/// A small file system that is unmounted at the end of the test.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    fn new(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(dir.path())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self { dir });
        }
        println!("skipped: file systems cannot be mounted here");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.dir.path()).status();
    }
}

#[test]
fn a_full_disk_fails_the_import_wherever_it_is_met_and_leaves_nothing() {
    if Host::new().is_none() {
        return;
    }
    // Bytes that do not compress: a short period would be found by the compressor.
    let mut state = 1_u32;
    let noise: String = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b' ' + (state >> 24) as u8 % 90)
    })
    .take(1 << 20)
    .collect();
    let archive = Archive::oci(
        &[Layer::new().file("noise", &noise).finish()],
        Packing::Plain,
    );
    // Full while reading the archive, while unpacking, and while making the root disk.
    for size in ["512k", "1600k", "2800k"] {
        let Some(disk) = SmallDisk::new(size) else {
            return;
        };
        let store = ImageStore::open(disk.dir.path()).unwrap();
        let bytes = archive.to_tar();
        let error = store
            .import(bytes.as_slice(), &Limits::default(), &mut |_| {})
            .unwrap_err();
        assert!(
            matches!(error, ImportError::DiskFull { .. }),
            "{size}: {error}"
        );
        let left: Vec<_> = fs::read_dir(disk.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| name != ".lock")
            .collect();
        assert!(left.is_empty(), "{size}: {left:?}");
    }
}

#[test]
fn the_built_in_images_are_imported() {
    let Some(host) = Host::new() else { return };
    let Some(assets) = std::env::var_os("COPPICE_ASSETS") else {
        println!("skipped: COPPICE_ASSETS is not set, run `cargo xtask test`");
        return;
    };
    for (name, program) in [
        ("coppice-busybox", "usr/bin/busybox"),
        ("coppice-python", "usr/bin/python3"),
    ] {
        let path = std::path::Path::new(&assets).join(format!("images/{name}.tar"));
        let file = fs::File::open(path).unwrap();
        let imported = host
            .store
            .import(file, &Limits::default(), &mut |_| {})
            .unwrap();
        assert_eq!(imported.references, [format!("{name}:latest")]);
        assert_eq!(imported.config.cmd, ["sleep", "infinity"]);
        let disk = host.listing(&imported.digest);
        assert_ne!(disk.line(program), "absent");
        assert_eq!(disk.line("bin"), "-> usr/bin");
        assert_eq!(disk.line("tmp"), "dir 1777 0:0");
    }
}
