//! Which image of an archive is meant, and what it is made of.

use std::collections::BTreeSet;

use oci_spec::image::{Descriptor, MediaType};

use super::documents::{self, SavedImage};
use super::{Parts, blob_name, read_blob, read_document};
use crate::layer::LayerBlob;
use crate::{Digest, ImageConfig, ImportError, Limit, Limits, Platform};

/// Indexes within indexes: one for the layout, one for the platforms of an image, one to spare.
const MOST_INDEX_DEPTH: usize = 3;

/// Names of an image in the annotations of its descriptor, the fuller one first.
const NAME_ANNOTATIONS: [&str; 2] = [
    "io.containerd.image.name",
    "org.opencontainers.image.ref.name",
];

/// The image of an archive.
pub(crate) struct FoundImage {
    pub digest: Digest,
    pub references: Vec<String>,
    pub config: ImageConfig,
    /// The lowest first.
    pub layers: Vec<LayerBlob>,
}

/// Finds the one image for our platform. `docker save` of today writes an OCI layout, too, which is
/// preferred because it has a manifest with a digest that registries know.
pub(crate) fn find_image(parts: &dyn Parts, limits: &Limits) -> Result<FoundImage, ImportError> {
    if let Some(bytes) = read_document(parts, "index.json", limits)? {
        return find_in_layout(parts, &bytes, limits);
    }
    match read_document(parts, "manifest.json", limits)? {
        Some(bytes) => find_in_saved(parts, &bytes, limits),
        None => Err(ImportError::NotAnImage),
    }
}

/// An image manifest that an index leads to.
struct Candidate {
    digest: Digest,
    reference: Option<String>,
}

struct Search<'a> {
    parts: &'a dyn Parts,
    limits: &'a Limits,
    candidates: Vec<Candidate>,
    other_platforms: BTreeSet<String>,
}

fn find_in_layout(
    parts: &dyn Parts,
    index: &[u8],
    limits: &Limits,
) -> Result<FoundImage, ImportError> {
    let mut search = Search {
        parts,
        limits,
        candidates: Vec::new(),
        other_platforms: BTreeSet::new(),
    };
    search.index("index.json", index, None, MOST_INDEX_DEPTH)?;

    let digests: BTreeSet<_> = search.candidates.iter().map(|found| found.digest).collect();
    let references: BTreeSet<_> = search
        .candidates
        .iter()
        .filter_map(|found| found.reference.clone())
        .collect();
    let references: Vec<_> = references.into_iter().collect();
    match Vec::from_iter(digests).as_slice() {
        [digest] => read_image(parts, *digest, references, limits),
        [] => Err(ImportError::PlatformMissing {
            found: Vec::from_iter(search.other_platforms).join(", "),
        }),
        several => Err(ImportError::SeveralImages {
            found: match references.is_empty() {
                true => several
                    .iter()
                    .map(Digest::to_string)
                    .collect::<Vec<_>>()
                    .join(", "),
                false => references.join(", "),
            },
        }),
    }
}

impl Search<'_> {
    /// Goes through an index. Names given further out hold for everything inside.
    fn index(
        &mut self,
        what: &str,
        bytes: &[u8],
        outer_name: Option<&str>,
        depth: usize,
    ) -> Result<(), ImportError> {
        for descriptor in documents::index(what, bytes)?.manifests() {
            let name = name_of(descriptor);
            let name = name.as_deref().or(outer_name);
            match descriptor.media_type() {
                MediaType::ImageIndex => self.inner_index(descriptor, name, depth)?,
                MediaType::Other(kind) if kind.ends_with("manifest.list.v2+json") => {
                    self.inner_index(descriptor, name, depth)?;
                }
                _ => self.manifest(descriptor, name)?,
            }
        }
        Ok(())
    }

    fn inner_index(
        &mut self,
        descriptor: &Descriptor,
        name: Option<&str>,
        depth: usize,
    ) -> Result<(), ImportError> {
        let digest = documents::digest(descriptor)?;
        let what = blob_name(&digest);
        if depth == 0 {
            return Err(ImportError::malformed(&what, "indexes are nested too deep"));
        }
        let bytes = read_blob(self.parts, &digest, self.limits)?;
        self.index(&what, &bytes, name, depth - 1)
    }

    fn manifest(&mut self, descriptor: &Descriptor, name: Option<&str>) -> Result<(), ImportError> {
        let platform = descriptor.platform().as_ref().map(|platform| Platform {
            os: platform.os().to_string(),
            architecture: platform.architecture().to_string(),
        });
        match platform {
            Some(other) if other != Platform::default() => {
                // Attestations are listed as manifests for a platform called unknown.
                if other.os != "unknown" {
                    self.other_platforms.insert(other.to_string());
                }
            }
            // Without a platform, the image's config will tell.
            _ => self.candidates.push(Candidate {
                digest: documents::digest(descriptor)?,
                reference: name.map(str::to_owned),
            }),
        }
        Ok(())
    }
}

fn name_of(descriptor: &Descriptor) -> Option<String> {
    let annotations = descriptor.annotations().as_ref()?;
    NAME_ANNOTATIONS
        .iter()
        .find_map(|key| annotations.get(*key))
        .cloned()
}

fn read_image(
    parts: &dyn Parts,
    digest: Digest,
    references: Vec<String>,
    limits: &Limits,
) -> Result<FoundImage, ImportError> {
    let what = blob_name(&digest);
    let manifest = documents::manifest(&what, &read_blob(parts, &digest, limits)?)?;
    let config_digest = documents::digest(manifest.config())?;
    let config_bytes = read_blob(parts, &config_digest, limits)?;
    let (config, diff_ids) = read_config(&blob_name(&config_digest), &config_bytes)?;
    let mut blobs = Vec::new();
    for layer in manifest.layers() {
        let digest = documents::digest(layer)?;
        blobs.push((blob_name(&digest), Some(digest)));
    }
    let layers = pair_layers(parts, &what, blobs, diff_ids, limits)?;
    Ok(FoundImage {
        digest,
        references,
        config,
        layers,
    })
}

fn find_in_saved(
    parts: &dyn Parts,
    list: &[u8],
    limits: &Limits,
) -> Result<FoundImage, ImportError> {
    let what = "manifest.json";
    let mut images = documents::saved_images(what, list)?;
    let names = |image: &SavedImage| image.repo_tags.clone().unwrap_or_default();
    if images.len() > 1 {
        let found = images.iter().flat_map(names).collect::<Vec<_>>().join(", ");
        return Err(ImportError::SeveralImages { found });
    }
    let image = images.pop().ok_or(ImportError::NotAnImage)?;
    let config_bytes =
        read_document(parts, &image.config, limits)?.ok_or_else(|| ImportError::Missing {
            name: image.config.clone(),
        })?;
    let config_digest = Digest::of(&config_bytes);
    if let Some(expected) = digest_in_name(&image.config) {
        crate::layer::check_digest(&image.config, expected, config_digest)?;
    }
    let (config, diff_ids) = read_config(&image.config, &config_bytes)?;
    let digest = saved_digest(&config_digest);
    let blobs = image
        .layers
        .iter()
        .map(|name| (name.clone(), digest_in_name(name)))
        .collect();
    let layers = pair_layers(parts, what, blobs, diff_ids, limits)?;
    Ok(FoundImage {
        digest,
        references: names(&image),
        config,
        layers,
    })
}

/// The digest of an image that comes without a manifest: that of a line of text with the digest of its
/// config. The config names the content of every layer, so the digest stands for all of the image.
fn saved_digest(config: &Digest) -> Digest {
    Digest::of(format!("docker-save config {config}\n").as_bytes())
}

/// The digest that Docker put into the name of a part: `<hex>.json` or `blobs/sha256/<hex>`. Layers
/// in the old form `<id>/layer.tar` have none.
fn digest_in_name(name: &str) -> Option<Digest> {
    let file = name
        .strip_prefix("blobs/sha256/")
        .or_else(|| name.strip_suffix(".json"))?;
    Digest::from_hex(file).ok()
}

fn read_config(what: &str, bytes: &[u8]) -> Result<(ImageConfig, Vec<Digest>), ImportError> {
    let configuration = documents::configuration(what, bytes)?;
    let config = ImageConfig::from(&configuration);
    if config.platform != Platform::default() {
        return Err(ImportError::PlatformMissing {
            found: config.platform.to_string(),
        });
    }
    let diff_ids: Result<Vec<Digest>, _> = configuration
        .rootfs()
        .diff_ids()
        .iter()
        .map(|id| id.parse())
        .collect();
    Ok((config, diff_ids?))
}

fn pair_layers(
    parts: &dyn Parts,
    what: &str,
    blobs: Vec<(String, Option<Digest>)>,
    diff_ids: Vec<Digest>,
    limits: &Limits,
) -> Result<Vec<LayerBlob>, ImportError> {
    if blobs.len() as u64 > limits.layers {
        return Err(limits.exceeded(Limit::Layers, what));
    }
    if blobs.len() != diff_ids.len() {
        let reason = format!(
            "{} layers, but {} in the config",
            blobs.len(),
            diff_ids.len()
        );
        return Err(ImportError::malformed(what, reason));
    }
    let pair = |((name, blob_digest), diff_id): ((String, _), _)| match parts.path(&name)? {
        Some(path) => Ok(LayerBlob {
            path,
            name,
            blob_digest,
            diff_id,
        }),
        None => Err(ImportError::Missing { name }),
    };
    blobs.into_iter().zip(diff_ids).map(pair).collect()
}
