//! Archives that want something else than to be unpacked.

use images::{ImportError, Limit, Limits, Refusal};
use tar::EntryType;

use crate::archive::{Archive, Layer, Packing, config};
use crate::disk::Host;

/// Imports layers that must be refused because of an entry, and checks that nothing is left.
fn assert_refused(host: &Host, layers: Vec<Layer>, entry: &str, reason: Refusal) {
    let layers: Vec<_> = layers.into_iter().map(Layer::finish).collect();
    let error = host
        .import(&Archive::oci(&layers, Packing::Gzip))
        .unwrap_err();
    match &error {
        ImportError::Refused {
            entry: refused,
            reason: why,
            ..
        } => {
            assert_eq!((refused.as_str(), why), (entry, &reason));
        }
        other => panic!("{entry} should be refused, but: {other}"),
    }
    assert!(error.to_string().contains(entry), "{error}");
    host.assert_clean();
    assert_eq!(host.store.digests().unwrap(), []);
}

#[test]
fn paths_that_lead_out_are_refused_by_name() {
    let Some(host) = Host::new() else { return };
    let out = Refusal::ParentComponent;
    for name in [
        "../canary",
        "a/../../canary",
        "..",
        "/../canary",
        "./../../canary",
    ] {
        assert_refused(
            &host,
            vec![Layer::new().file(name, "dead")],
            name,
            out.clone(),
        );
        assert_refused(&host, vec![Layer::new().directory(name)], name, out.clone());
        assert_refused(
            &host,
            vec![Layer::new().symlink(name, "x")],
            name,
            out.clone(),
        );
    }
    assert_refused(
        &host,
        vec![Layer::new().file("../.wh.canary", "")],
        "../.wh.canary",
        out,
    );
}

#[test]
fn links_that_lead_out_cannot_be_written_through() {
    let Some(host) = Host::new() else { return };
    let out = Refusal::OutsideLink;
    for target in ["..", "../..", "../../../../../../tmp", "a/../../.."] {
        // Within one layer, and through a link of a layer below.
        let link = || Layer::new().directory("a").symlink("exit", target);
        let write = |layer: Layer| layer.file("exit/canary", "dead");
        assert_refused(&host, vec![write(link())], "exit/canary", out.clone());
        let split = vec![link(), write(Layer::new())];
        assert_refused(&host, split, "exit/canary", out.clone());
        let deleting = vec![link(), Layer::new().file("exit/.wh.canary", "")];
        assert_refused(&host, deleting, "exit/.wh.canary", out.clone());
        let linking = vec![link(), Layer::new().hard_link("x", "exit/canary")];
        assert_refused(&host, linking, "x", out.clone());
    }
    let circle = Layer::new()
        .symlink("a", "b")
        .symlink("b", "a")
        .file("a/x", "");
    assert_refused(&host, vec![circle], "a/x", Refusal::TooManyLinks);
}

#[test]
fn absolute_names_and_links_mean_the_images_own_root() {
    let Some(host) = Host::new() else { return };
    let canary = host.path("canary").to_string_lossy().into_owned();
    let dir = host.path("").to_string_lossy().into_owned();
    let lower = Layer::new().symlink("exit", dir.trim_end_matches('/'));
    let upper = Layer::new()
        .file(&canary, "in the image")
        .file("exit/second", "too");
    let disk = host.import_layers(&[lower.finish(), upper.finish()]);
    assert_eq!(
        disk.line(canary.trim_start_matches('/')),
        "file 644 0:0 in the image"
    );
    host.assert_clean();
}

#[test]
fn a_file_is_written_over_a_link_not_through_it() {
    let Some(host) = Host::new() else { return };
    let canary = host.path("canary").to_string_lossy().into_owned();
    let lower = Layer::new()
        .symlink("x", &canary)
        .symlink("y", "/proc/self/cwd/etc");
    let upper = Layer::new().file("x", "mine").file("y/passwd", "mine too");
    let disk = host.import_layers(&[lower.finish(), upper.finish()]);
    assert_eq!(disk.line("x"), "file 644 0:0 mine");
    assert_eq!(
        disk.line("proc/self/cwd/etc/passwd"),
        "file 644 0:0 mine too"
    );
    host.assert_clean();
}

#[test]
fn hard_links_to_what_is_not_in_the_image_are_refused() {
    let Some(host) = Host::new() else { return };
    let missing = Refusal::HardLinkTargetMissing;
    let link = |target: &str| vec![Layer::new().hard_link("x", target)];
    assert_refused(&host, link("etc/passwd"), "x", missing.clone());
    assert_refused(&host, link("/etc/passwd"), "x", missing);
    assert_refused(&host, link("../canary"), "x", Refusal::ParentComponent);
    assert_refused(&host, link("."), "x", Refusal::HardLinkToDirectory);
    let directory = Layer::new().directory("d").hard_link("x", "d");
    assert_refused(&host, vec![directory], "x", Refusal::HardLinkToDirectory);
    // The new name is a directory that contains the target.
    let inside = Layer::new().file("d/f", "").hard_link("d", "d/f");
    assert_refused(&host, vec![inside], "d", Refusal::HardLinkTargetMissing);
}

#[test]
fn device_nodes_are_refused() {
    let Some(host) = Host::new() else { return };
    for kind in [EntryType::Char, EntryType::Block] {
        for name in ["disk", "devices/disk", "a/dev/disk"] {
            let layer = Layer::new().entry(kind, name, "", b"", |header| {
                header.set_device_major(8).unwrap();
                header.set_device_minor(0).unwrap();
            });
            assert_refused(&host, vec![layer], name, Refusal::DeviceNode);
        }
    }
    // By a link into dev, the node would get another name.
    let linked = Layer::new().directory("x").symlink("dev", "x");
    let linked = linked.entry(EntryType::Block, "dev/disk", "", b"", |_| {});
    assert_refused(&host, vec![linked], "dev/disk", Refusal::DeviceNode);
}

#[test]
fn odd_entries_are_refused() {
    let Some(host) = Host::new() else { return };
    let one = |layer: Layer| vec![layer];
    assert_refused(
        &host,
        one(Layer::new().file(".wh.", "")),
        ".wh.",
        Refusal::BadWhiteout,
    );
    assert_refused(
        &host,
        one(Layer::new().file("a/.wh...", "")),
        "a/.wh...",
        Refusal::BadWhiteout,
    );
    assert_refused(
        &host,
        one(Layer::new().symlink("./", "x")),
        "./",
        Refusal::ReplacesRoot,
    );
    let through = Layer::new().file("f", "").file("f/x", "");
    assert_refused(&host, one(through), "f/x", Refusal::ParentNotDirectory);
    let unknown = Layer::new().entry(EntryType::new(b'Z'), "odd", "", b"", |_| {});
    assert_refused(&host, one(unknown), "odd", Refusal::UnknownType(b'Z'));
    let sparse = Layer::new().entry(EntryType::GNUSparse, "holes", "", b"", |_| {});
    assert_refused(&host, one(sparse), "holes", Refusal::Sparse);
    let lying = Layer::new().extended(&[("size", b"9")]).file("f", "12");
    assert_refused(&host, one(lying), "f", Refusal::BadNumber("size"));
    let nobody = Layer::new()
        .extended(&[("uid", b"4294967295")])
        .file("f", "");
    assert_refused(&host, one(nobody), "f", Refusal::BadNumber("owner"));
    assert_refused(
        &host,
        one(Layer::new().symlink("l", "")),
        "l",
        Refusal::NoPath,
    );
    let long = "n".repeat(300);
    let long = Layer::new()
        .extended(&[("linkpath", long.as_bytes())])
        .symlink("l", "x");
    assert_refused(
        &host,
        one(long.file("l/x", "")),
        "l/x",
        Refusal::NameTooLong,
    );
    let huge = vec![b'n'; 2 << 20];
    let huge = Layer::new().entry(EntryType::GNULongName, "long", "", &huge, |_| {});
    assert_refused(&host, one(huge), "long", Refusal::BadExtension);
}

#[test]
fn every_limit_stops_an_import_and_names_the_entry() {
    let Some(host) = Host::new() else { return };
    let layer = Layer::new()
        .file("a/b/small", "1234")
        .file("a/b/c/large", &"x".repeat(5000));
    let archive = Archive::oci(&[layer.finish()], Packing::Gzip);
    type Lower = fn(&mut Limits);
    let cases: [(Lower, Limit, &str); 10] = [
        (
            |limits| limits.archive_bytes = 1500,
            Limit::ArchiveBytes,
            "the archive",
        ),
        (
            |limits| limits.unpacked_bytes = 3000,
            Limit::UnpackedBytes,
            "a/b/c/large",
        ),
        (
            |limits| limits.file_bytes = 4999,
            Limit::FileBytes,
            "a/b/c/large",
        ),
        // Two directories and a file, then one of each.
        (|limits| limits.entries = 4, Limit::Entries, "a/b/c/large"),
        (|limits| limits.entries = 2, Limit::Entries, "a/b/small"),
        (
            |limits| limits.names_bytes = 45,
            Limit::NamesBytes,
            "a/b/c/large",
        ),
        (
            |limits| limits.path_bytes = 10,
            Limit::PathBytes,
            "a/b/c/large",
        ),
        (
            |limits| limits.path_depth = 3,
            Limit::PathDepth,
            "a/b/c/large",
        ),
        (
            |limits| limits.manifest_bytes = 100,
            Limit::ManifestBytes,
            "index.json",
        ),
        (|limits| limits.layers = 0, Limit::Layers, "blobs/sha256/"),
    ];
    for (set, limit, entry) in cases {
        let mut limits = Limits::default();
        set(&mut limits);
        match host.import_with(&archive, &limits).unwrap_err() {
            ImportError::LimitExceeded {
                entry: named,
                limit: met,
                ..
            } => {
                assert_eq!(met, limit);
                assert!(named.starts_with(entry), "{named} instead of {entry}");
            }
            other => panic!("{limit} should be met, but: {other}"),
        }
        host.assert_clean();
    }
}

#[test]
fn a_compression_bomb_is_stopped_long_before_its_end() {
    let Some(host) = Host::new() else { return };
    let zeros = vec![0; 100 << 20];
    let layer = Layer::new()
        .entry(EntryType::Regular, "bomb", "", &zeros, |_| {})
        .finish();
    for packing in [Packing::Gzip, Packing::Zstd] {
        let error = host
            .import(&Archive::oci(std::slice::from_ref(&layer), packing))
            .unwrap_err();
        let bomb = matches!(&error, ImportError::LimitExceeded { limit, entry, .. }
            if *limit == Limit::CompressionRatio && entry == "bomb");
        assert!(bomb, "{error}");
        host.assert_clean();
    }
}

#[test]
fn content_that_differs_from_its_digest_is_refused() {
    let Some(host) = Host::new() else { return };
    let layers = [Layer::new().file("a", "x").finish()];
    let good = Archive::oci(&layers, Packing::Plain);
    for at in 0..good.parts.len() - 1 {
        let mut bad = good.clone();
        let bytes = &mut bad.parts[at].1;
        // In the middle of the file's content, or of a document.
        let middle = if at == 0 { 512 } else { bytes.len() / 2 };
        bytes[middle] ^= 1;
        let error = host.import(&bad).unwrap_err();
        let named = error.to_string().contains(&good.parts[at].0);
        assert!(
            matches!(error, ImportError::DigestMismatch { .. }) && named,
            "{error}"
        );
        host.assert_clean();
    }
    // Another layer under a true blob digest, but not the one that the config knows.
    let mut archive = Archive::default();
    let other = Layer::new().file("a", "y").finish();
    let descriptor = archive.image(&layers, Packing::Gzip, config(&[other]));
    archive.index(&[descriptor]);
    let error = host.import(&archive).unwrap_err();
    assert!(
        matches!(error, ImportError::DigestMismatch { .. }),
        "{error}"
    );
    host.assert_clean();
}

#[test]
fn a_layer_cut_short_is_refused() {
    let Some(host) = Host::new() else { return };
    let mut layer = Layer::new()
        .file("whole", "x")
        .file("cut", &"y".repeat(4000))
        .finish();
    layer.truncate(3000);
    let error = host
        .import(&Archive::oci(&[layer], Packing::Gzip))
        .unwrap_err();
    assert!(
        matches!(&error, ImportError::LayerDamaged { entry, .. } if entry == "cut"),
        "{error}"
    );
    host.assert_clean();
}
