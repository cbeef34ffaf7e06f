//! Damaged images: refused, or the machine that meets the damage is killed; wrong bytes are never seen.

use memory::Encoding;
use pager::Supervisor;

use super::reference::{Layer, Reference, damage_file};
use super::rig::{Rig, config};

pub(crate) const ALL: &[super::Test] = &[
    (
        "damaged_pages_kill_who_needs_them",
        damaged_pages_kill_who_needs_them,
    ),
    (
        "an_image_with_a_damaged_head_is_not_served",
        an_image_with_a_damaged_head_is_not_served,
    ),
    (
        "a_file_that_is_cut_kills_who_needs_it",
        a_file_that_is_cut_kills_who_needs_it,
    ),
    (
        "without_a_daemon_a_signal_ends_it",
        without_a_daemon_a_signal_ends_it,
    ),
];

const PAGES: u64 = 2048;

fn image(dir: &std::path::Path, encoding: Encoding) -> Reference {
    let layers = [
        Layer::whole(encoding, PAGES, 0),
        Layer::striped(encoding, PAGES, 16, 8, 1),
    ];
    Reference::new(&dir.join("image"), PAGES, &layers)
}

fn damaged_pages_kill_who_needs_them() {
    for encoding in [Encoding::Packed, Encoding::Flat, Encoding::Zstd] {
        for layer in [0, 1] {
            let dir = tempfile::tempdir().unwrap();
            let reference = image(dir.path(), encoding);
            // The byte at three quarters of a flat file is a page of either layer by the stripes chosen here.
            let part = if layer == 0 {
                0.7499
            } else {
                (1536.0 + 10.0) / PAGES as f64
            };
            reference.damage(layer, "pages", part);
            let rig = Rig::of(dir.path(), &reference);
            let mut guest = rig.guest("vm", &reference);
            // Far from the damage all is well.
            assert_eq!(guest.sum(0, 8), Some(reference.sum(0, 8)));
            guest.tell(&format!("sum 0 {PAGES} 2"));
            assert_eq!(
                guest.result(),
                None,
                "{encoding:?}, layer {layer}: it has read everything"
            );
            let reason = rig.failure("vm");
            assert!(reason.contains("checksum of chunk"), "{reason}");
            guest.ended();
        }
    }
}

fn an_image_with_a_damaged_head_is_not_served() {
    for encoding in [Encoding::Packed, Encoding::Flat, Encoding::Zstd] {
        for (file, part) in [("idx", 0.0), ("idx", 0.3), ("idx", 0.99), ("manifest", 0.5)] {
            let dir = tempfile::tempdir().unwrap();
            let reference = image(dir.path(), encoding);
            match file {
                "manifest" => damage_file(&reference.dir.join("manifest.json"), part),
                ending => reference.damage(1, ending, part),
            }
            let started = Supervisor::start(config(dir.path(), &reference.dir), |_| {});
            assert!(started.is_err(), "{encoding:?}: {file} at {part}");
        }
        for ending in ["idx", "pages"] {
            let dir = tempfile::tempdir().unwrap();
            let reference = image(dir.path(), encoding);
            reference.cut(0, ending);
            let started = Supervisor::start(config(dir.path(), &reference.dir), |_| {});
            assert!(started.is_err(), "{encoding:?}: a cut {ending} file");
        }
    }
}

/// Nobody is there to kill the machine. It ends by a signal, at the page that cannot be had, and reads nothing.
fn without_a_daemon_a_signal_ends_it() {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split('.')
        .map(|number| number.parse().unwrap_or(0_u32));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (6, 6) {
        println!(
            "skipped: Linux {} cannot poison missing pages",
            release.trim()
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let reference = image(dir.path(), Encoding::Zstd);
    reference.damage(0, "pages", 0.5);
    let rig = Rig::of(dir.path(), &reference);
    let mut guest = rig.guest("vm", &reference);
    let config = rig.config.clone();
    drop(rig);
    guest.tell(&format!("sum 0 {PAGES} 2"));
    assert_eq!(guest.result(), None, "it has read everything");
    let signal = std::os::unix::process::ExitStatusExt::signal(&guest.ended());
    assert_eq!(signal, Some(rustix::process::Signal::BUS.as_raw()));
    // The next daemon hears why, though the machine is gone.
    let rig = Rig::adopt(config);
    let reason = rig.failure("vm");
    assert!(reason.contains("checksum"), "{reason}");
    assert_eq!(rig.supervisor.vms().unwrap(), Vec::<String>::new());
}

/// Cut after the pager has opened and mapped it: no signal for the pager, an end with a reason for the guest.
fn a_file_that_is_cut_kills_who_needs_it() {
    let dir = tempfile::tempdir().unwrap();
    let reference = image(dir.path(), Encoding::Packed);
    let rig = Rig::of(dir.path(), &reference);
    let mut guest = rig.guest("vm", &reference);
    // Checks the first chunk, a part of which is cut off then.
    assert_eq!(guest.sum(0, 8), Some(reference.sum(0, 8)));
    let pid = rig.pid();
    let image = memory::Image::open(&reference.dir).unwrap();
    let path = reference
        .dir
        .join(format!("ram-{}.pages", image.manifest().layers[0].id));
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(400 << 10)
        .unwrap();
    guest.tell("sum 96 64 1");
    assert_eq!(guest.result(), None, "it has read what is not there");
    let reason = rig.failure("vm");
    assert!(reason.contains("cannot be read"), "{reason}");
    assert_eq!(rig.pid(), pid, "the pager has died of it");
}
