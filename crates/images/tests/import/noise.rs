//! Layers with bytes changed at random: imported or refused, but nothing worse.

use proptest::prelude::*;

use crate::archive::{Archive, Layer, Packing};
use crate::disk::Host;

/// A layer with something of everything.
fn rich_layer() -> Vec<u8> {
    Layer::new()
        .directory("d")
        .file("d/f", "some content")
        .symlink("l", "d")
        .hard_link("h", "d/f")
        .extended(&[
            ("path", b"d/long"),
            ("SCHILY.xattr.user.x", b"y"),
            ("mtime", b"5.5"),
        ])
        .file("x", "more")
        .file("l/.wh.f", "")
        .file("d/.wh..wh..opq", "")
        .finish()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_layer_never_does_harm(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        end in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let Some(host) = Host::new() else { return Ok(()) };
        let mut layer = rich_layer();
        for (at, byte) in changes {
            // Within headers mostly, and with their checksums made right again.
            let at = at.index(layer.len());
            layer[at] = byte;
            let block = at / 512 * 512;
            repair_checksum(&mut layer[block..block + 512]);
        }
        if let Some(end) = end {
            layer.truncate(end.index(layer.len()));
        }
        let _ = host.import(&Archive::oci(&[rich_layer(), layer], Packing::Plain));
        host.assert_clean();
    }

    #[test]
    fn a_changed_archive_never_does_harm(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let Some(host) = Host::new() else { return Ok(()) };
        let mut bytes = Archive::oci(&[rich_layer()], Packing::Gzip).to_tar();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = host.store.import(bytes.as_slice(), &images::Limits::default(), &mut |_| {});
        host.assert_clean();
    }
}

/// Makes a block look like a header again if it was one.
fn repair_checksum(block: &mut [u8]) {
    if &block[257..262] != b"ustar" {
        return;
    }
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}
