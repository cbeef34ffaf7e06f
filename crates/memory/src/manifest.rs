//! The manifest, format 1: what an image holds and which machine it fits.
//!
//! On disk it is `{"checksum": "<BLAKE3 of the manifest text>", "manifest": {…}}`; the checksum covers the text
//! exactly as it stands, so any changed byte is seen, not only one that changes a value.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{ImageError, ImageId, LayerId, names};

/// Version that this program writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// Contents of a finished image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format of this manifest and of the files beside it.
    pub format: u32,
    /// The image's own id.
    pub image_id: ImageId,
    /// Creation time, milliseconds since the epoch.
    pub created_at_ms: u64,
    /// The machine that was saved.
    pub machine: MachineFacts,
    /// The read-only root file system it ran on.
    pub root: RootRecord,
    /// RAM layers, the full one first.
    pub layers: Vec<LayerRecord>,
    /// Device state.
    pub state: StateRecord,
    /// Frozen disk chain, base first.
    pub disks: Vec<DiskRecord>,
}

/// The machine a memory image was taken from; one that differs in any of these must not load it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineFacts {
    /// The program that ran it.
    pub vmm: VmmFacts,
    /// Number of virtual CPUs.
    pub vcpus: u32,
    /// Guest RAM in bytes.
    pub ram_bytes: u64,
    /// Kernel command line the guest was booted with.
    pub cmdline: String,
    /// SHA-256 of the kernel the guest was booted with.
    pub kernel_sha256: String,
    /// SHA-256 of the initrd the guest was booted with.
    pub initrd_sha256: String,
    /// SHA-256 of the root file system image; the guest has parts of it cached.
    pub root_sha256: String,
    /// Its network card, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nic: Option<NicFacts>,
}

/// A network card as the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NicFacts {
    /// Ethernet address, `52:54:00:00:00:01`.
    pub mac: String,
}

/// Identity of the VMM, exact because device state is its private format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmmFacts {
    /// Program, e.g. `qemu`.
    pub name: String,
    /// Exact version.
    pub version: String,
    /// `tcg` or `kvm`.
    pub accelerator: String,
    /// Machine model and the revision of our device layout.
    pub machine: String,
    /// CPU model with its feature flags.
    pub cpu_model: String,
}

/// The root file system by its OCI image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootRecord {
    /// Digest of the OCI image.
    pub digest: String,
}

/// One RAM layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerRecord {
    /// Names the layer's files.
    pub id: LayerId,
    /// Pages held.
    pub pages: u64,
    /// BLAKE3 of the index, which holds the checksums of the pages.
    pub index_blake3: String,
}

/// Device state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateRecord {
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: String,
}

/// Format of a disk file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// Plain blocks.
    Raw,
    /// QEMU copy-on-write format 2.
    Qcow2,
}

/// One file of the disk chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskRecord {
    /// How to read it.
    pub format: DiskFormat,
    /// Size of the disk the guest sees, in bytes.
    pub virtual_bytes: u64,
    /// Length of the file in bytes.
    pub file_bytes: u64,
    /// SHA-256 over the length and (number, bytes) of the non-zero 64 KiB blocks.
    pub sparse_sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    checksum: String,
    #[serde(borrow)]
    manifest: &'a RawValue,
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

impl Manifest {
    /// The manifest as the bytes of its file.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let raw = serde_json::value::to_raw_value(self)?;
        let checksum = blake3::hash(raw.get().as_bytes()).to_hex().to_string();
        serde_json::to_vec(&Envelope {
            checksum,
            manifest: &raw,
        })
    }

    /// Reads a manifest file.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ImageError> {
        let unreadable = |what: String| ImageError::corrupt(names::MANIFEST, what);
        let envelope: Envelope<'_> =
            serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
        let text = envelope.manifest.get();
        if blake3::hash(text.as_bytes()).to_hex().as_str() != envelope.checksum {
            return Err(unreadable("checksum".into()));
        }
        let FormatOnly { format: found } =
            serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
        if found != FORMAT_VERSION {
            return Err(ImageError::Version {
                found,
                supported: FORMAT_VERSION,
            });
        }
        serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Field order and spelling are part of the format: what is read is written back byte for byte.
    #[test]
    fn the_first_format_is_still_written() {
        let golden = include_bytes!("../tests/golden/manifest-v1.json");
        let manifest = Manifest::decode(golden).unwrap();
        assert_eq!(manifest.encode().unwrap(), golden);
    }
}
