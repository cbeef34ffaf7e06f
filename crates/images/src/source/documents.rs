//! The JSON documents of archives.
//!
//! OCI's own come from the oci-spec crate. The list in an archive of `docker save` has no
//! specification but Docker's source.

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{Digest, ImportError};

/// One image of the file `manifest.json` in an archive of `docker save`.
#[derive(Debug, Deserialize)]
pub(super) struct SavedImage {
    /// Name of the part that is the image's config.
    #[serde(rename = "Config")]
    pub config: String,
    /// Its names; `null` if it has none.
    #[serde(rename = "RepoTags", default)]
    pub repo_tags: Option<Vec<String>>,
    /// Names of the parts that are its layers, the lowest first.
    #[serde(rename = "Layers")]
    pub layers: Vec<String>,
}

pub(super) fn index(what: &str, bytes: &[u8]) -> Result<ImageIndex, ImportError> {
    parse(what, bytes)
}

pub(super) fn manifest(what: &str, bytes: &[u8]) -> Result<ImageManifest, ImportError> {
    parse(what, bytes)
}

pub(super) fn configuration(what: &str, bytes: &[u8]) -> Result<ImageConfiguration, ImportError> {
    parse(what, bytes)
}

pub(super) fn saved_images(what: &str, bytes: &[u8]) -> Result<Vec<SavedImage>, ImportError> {
    parse(what, bytes)
}

/// The digest a descriptor refers to.
pub(super) fn digest(descriptor: &Descriptor) -> Result<Digest, ImportError> {
    Ok(descriptor.digest().to_string().parse()?)
}

fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, ImportError> {
    serde_json::from_slice(bytes).map_err(|error| ImportError::malformed(what, error))
}
