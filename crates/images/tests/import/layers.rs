//! What layers mean: deletion, replacement, links, owners, times.

use std::fs;
use std::os::unix::fs::MetadataExt;

use tar::EntryType;

use crate::archive::{Archive, Layer, Packing};
use crate::disk::Host;

#[test]
fn a_whiteout_deletes_from_lower_layers_only() {
    let Some(host) = Host::new() else { return };
    let lower = Layer::new()
        .file("a/old", "1")
        .file("a/kept", "2")
        .file("b/deep/x", "3");
    // The deletion of `same` comes after the file that this layer itself puts there.
    let upper = Layer::new()
        .file("a/.wh.old", "")
        .file(".wh.b", "")
        .file("same", "4")
        .file(".wh.same", "")
        .file("a/.wh.never-there", "")
        .file("nowhere/.wh.x", "");
    let disk = host.import_layers(&[lower.finish(), upper.finish()]);
    assert_eq!(disk.paths(), ["a", "a/kept", "same"]);
}

#[test]
fn an_opaque_directory_hides_everything_below_it_wherever_the_mark_stands() {
    let Some(host) = Host::new() else { return };
    let lower = || {
        Layer::new()
            .file("d/old", "1")
            .file("d/sub/old", "2")
            .file("e/old", "3")
    };
    for mark_first in [true, false] {
        let mut upper = Layer::new();
        if mark_first {
            upper = upper.file("d/.wh..wh..opq", "");
        }
        upper = upper.file("d/new", "4").file("d/sub/new", "5");
        if !mark_first {
            upper = upper.file("d/.wh..wh..opq", "");
        }
        let disk = host.import_layers(&[lower().finish(), upper.finish()]);
        assert_eq!(
            disk.paths(),
            ["d", "d/new", "d/sub", "d/sub/new", "e", "e/old"]
        );
    }
}

#[test]
fn an_entry_replaces_another_of_different_kind() {
    let Some(host) = Host::new() else { return };
    let lower = Layer::new()
        .file("file-to-dir", "1")
        .file("dir-to-file/x", "2")
        .symlink("link-to-dir", "elsewhere")
        .file("dir-to-link/y", "3");
    let upper = Layer::new()
        .directory("file-to-dir")
        .file("dir-to-file", "4")
        .directory("link-to-dir")
        .symlink("dir-to-link", "elsewhere");
    let disk = host.import_layers(&[lower.finish(), upper.finish()]);
    assert_eq!(disk.line("file-to-dir"), "dir 755 0:0");
    assert_eq!(disk.line("dir-to-file"), "file 644 0:0 4");
    assert_eq!(disk.line("link-to-dir"), "dir 755 0:0");
    assert_eq!(disk.line("dir-to-link"), "-> elsewhere");
    assert_eq!(disk.line("dir-to-file/x"), "absent");
}

#[test]
fn replacing_one_name_of_a_file_leaves_its_other_names_alone() {
    let Some(host) = Host::new() else { return };
    let lower = Layer::new().file("a", "old").hard_link("b", "a");
    let upper = Layer::new().file("a", "new");
    let disk = host.import_layers(&[lower.finish(), upper.finish()]);
    assert_eq!(disk.line("a"), "file 644 0:0 new");
    assert_eq!(disk.line("b"), "file 644 0:0 old");
}

#[test]
fn a_hard_link_may_lead_to_a_file_of_a_lower_layer() {
    let Some(host) = Host::new() else { return };
    let lower = Layer::new().file("dir/a", "x");
    let upper = Layer::new()
        .hard_link("b", "dir/a")
        .hard_link("/c", "/dir/a");
    let disk = host.import_layers(&[lower.finish(), upper.finish()]);
    assert_eq!(disk.line("b"), "file 644 0:0 x");
    assert_eq!(disk.line("c"), "file 644 0:0 x");
}

#[test]
fn a_layer_may_write_through_a_link_that_stays_in_the_image() {
    let Some(host) = Host::new() else { return };
    // The layout of every current distribution, and of one with absolute links.
    let lower = Layer::new()
        .directory("usr/bin")
        .symlink("bin", "usr/bin")
        .symlink("run2", "/run");
    let upper = Layer::new()
        .file("bin/tool", "1")
        .file("run2/lock", "2")
        .file("bin/.wh.x", "");
    let disk = host.import_layers(&[lower.finish(), upper.finish()]);
    assert_eq!(disk.line("bin"), "-> usr/bin");
    assert_eq!(disk.line("usr/bin/tool"), "file 644 0:0 1");
    assert_eq!(disk.line("run/lock"), "file 644 0:0 2");
}

#[test]
fn links_are_kept_wherever_they_lead() {
    let Some(host) = Host::new() else { return };
    let layer = Layer::new()
        .symlink("up", "../../../etc/passwd")
        .symlink("abs", "/etc/passwd");
    let disk = host.import_layers(&[layer.finish()]);
    assert_eq!(disk.line("up"), "-> ../../../etc/passwd");
    assert_eq!(disk.line("abs"), "-> /etc/passwd");
}

#[test]
fn owners_and_set_uid_bits_are_kept() {
    let Some(host) = Host::new() else { return };
    let layer = Layer::new()
        .entry(EntryType::Regular, "su", "", b"x", |header| {
            header.set_mode(0o4755);
            header.set_uid(12);
            header.set_gid(34);
        })
        .entry(EntryType::Directory, "tmp", "", b"", |header| {
            header.set_mode(0o1777);
        })
        .extended(&[("uid", b"2000000"), ("gid", b"3000000")])
        .file("large", "")
        .entry(EntryType::Fifo, "pipe", "", b"", |header| {
            header.set_mode(0o600);
        });
    let imported = host
        .import(&Archive::oci(&[layer.finish()], Packing::Gzip))
        .unwrap();
    assert_eq!(host.mode(&imported.digest, "/su"), 0o104_755);
    let disk = host.listing(&imported.digest);
    assert_eq!(disk.line("su").split_once(' ').unwrap().1, "755 12:34 x");
    assert_eq!(disk.line("tmp"), "dir 1777 0:0");
    assert_eq!(disk.line("large"), "file 644 2000000:3000000 ");
    assert_eq!(disk.line("pipe"), "special 600 0:0");
}

#[test]
fn files_and_directories_keep_their_times() {
    let Some(host) = Host::new() else { return };
    let layer = Layer::new()
        .entry(EntryType::Directory, "d", "", b"", |header| {
            header.set_mtime(1_234_567);
        })
        .file("d/f", "x")
        .extended(&[("mtime", b"987654321.5")])
        .file("d/g", "y");
    host.import_layers(&[layer.finish()]);
    let mtime = |path| {
        fs::metadata(host.path("extracted").join(path))
            .unwrap()
            .mtime()
    };
    assert_eq!(
        [mtime("d"), mtime("d/f"), mtime("d/g")],
        [1_234_567, 1_000_000_000, 987_654_321]
    );
}

#[test]
fn long_names_come_from_either_kind_of_extension() {
    let Some(host) = Host::new() else { return };
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let layer = Layer::new()
        .extended(&[("path", long.as_bytes())])
        .file("short", "pax")
        .entry(
            EntryType::GNULongName,
            "././@LongLink",
            "",
            b"gnu-name-in-full\0",
            |_| {},
        )
        .file("gnu", "gnu");
    let disk = host.import_layers(&[layer.finish()]);
    assert_eq!(disk.line(&long), "file 644 0:0 pax");
    assert_eq!(disk.line("gnu-name-in-full"), "file 644 0:0 gnu");
    assert_eq!(disk.line("short"), "absent");
}

#[test]
fn device_nodes_in_dev_are_left_out() {
    let Some(host) = Host::new() else { return };
    let layer =
        Layer::new()
            .directory("dev")
            .entry(EntryType::Char, "dev/null", "", b"", |header| {
                header.set_device_major(1).unwrap();
                header.set_device_minor(3).unwrap();
            });
    assert_eq!(host.import_layers(&[layer.finish()]).paths(), ["dev"]);
}

#[test]
fn capabilities_are_kept_and_foreign_labels_dropped() {
    let Some(host) = Host::new() else { return };
    let capability =
        b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x0a\x00\x00\x00\x00\x00\x00";
    let layer = Layer::new()
        .extended(&[
            ("SCHILY.xattr.security.capability", capability),
            (
                "SCHILY.xattr.security.selinux",
                b"system_u:object_r:bin_t:s0\0",
            ),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ])
        .file("ping", "x");
    let archive = Archive::oci(&[layer.finish()], Packing::Gzip);
    let imported = host.import(&archive).unwrap();
    let bytes = fs::read(host.store.rootfs(&imported.digest).unwrap()).unwrap();
    let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    assert!(holds(capability));
    assert!(!holds(b"bin_t") && !holds(b"opaque"));
}
