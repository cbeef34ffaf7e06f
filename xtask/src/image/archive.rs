//! An image as an OCI archive: a tar file of an OCI layout.

use serde_json::{Value, json};

use super::layer::{LayerBlob, sha256};

/// An image to be written.
pub(crate) struct Image {
    /// Repository name, which the archive's index carries with the tag `latest`.
    pub name: &'static str,
    /// What to run, by default.
    pub cmd: Vec<&'static str>,
    /// Layers from the lowest up.
    pub layers: Vec<LayerBlob>,
}

/// Name of the archive file of an image.
pub(crate) fn file_name(image_name: &str) -> String {
    format!("{image_name}.tar")
}

impl Image {
    /// Name of the archive file.
    pub(crate) fn file_name(&self) -> String {
        file_name(self.name)
    }

    /// The archive's bytes.
    pub(crate) fn to_oci_archive(&self) -> anyhow::Result<Vec<u8>> {
        let mut archive = ArchiveBuilder(tar::Builder::new(Vec::new()));
        archive.file(
            "oci-layout",
            &serde_json::to_vec(&json!({"imageLayoutVersion": "1.0.0"}))?,
        )?;
        let mut layers = Vec::new();
        for layer in &self.layers {
            let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
            layers.push(archive.blob(kind, &layer.gzip)?);
        }
        let config = serde_json::to_vec(&self.config())?;
        let config = archive.blob("application/vnd.oci.image.config.v1+json", &config)?;
        let manifest_kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": manifest_kind, "config": config, "layers": layers,
        });
        let mut manifest = archive.blob(manifest_kind, &serde_json::to_vec(&manifest)?)?;
        manifest["platform"] = json!({"architecture": "amd64", "os": "linux"});
        manifest["annotations"] =
            json!({"org.opencontainers.image.ref.name": format!("{}:latest", self.name)});
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [manifest],
        });
        archive.file("index.json", &serde_json::to_vec(&index)?)?;
        Ok(archive.0.into_inner()?)
    }

    fn config(&self) -> Value {
        let diff_ids: Vec<_> = self
            .layers
            .iter()
            .map(|layer| format!("sha256:{}", sha256(&layer.tar)))
            .collect();
        json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Cmd": self.cmd,
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
    }
}

struct ArchiveBuilder(tar::Builder<Vec<u8>>);

impl ArchiveBuilder {
    fn file(&mut self, path: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        header.set_mtime(0);
        Ok(self.0.append_data(&mut header, path, bytes)?)
    }

    /// Adds a blob under its digest and gives the descriptor that refers to it.
    fn blob(&mut self, media_type: &str, bytes: &[u8]) -> anyhow::Result<Value> {
        let hex = sha256(bytes);
        self.file(&format!("blobs/sha256/{hex}"), bytes)?;
        Ok(json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len()}))
    }
}
