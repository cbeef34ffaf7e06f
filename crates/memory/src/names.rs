//! File names inside an image's directory.

use crate::LayerId;

/// Written last; an image without it does not exist.
pub(crate) const MANIFEST: &str = "manifest.json";
/// The manifest before its rename.
pub(crate) const MANIFEST_PART: &str = "manifest.json.part";
/// Device state as the VMM wrote it.
pub(crate) const STATE: &str = "state";

/// Packed pages of a layer.
pub(crate) fn pages(layer: &LayerId) -> String {
    format!("ram-{layer}.pages")
}

/// Runs and checksums of a layer.
pub(crate) fn index(layer: &LayerId) -> String {
    format!("ram-{layer}.idx")
}

/// The `position`-th file of the frozen disk chain, base first.
pub(crate) fn disk(position: usize) -> String {
    format!("disk-{position}")
}
