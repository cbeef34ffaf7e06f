//! The use cases of images: import, look-up by name, removal.

use std::sync::Arc;

use images::{ImageStore, ImportError, Imported, Limits, Reference};
use model::UnixMillis;
use tokio::io::AsyncRead;
use tokio_util::io::SyncIoBridge;
use tracing::{info, warn};

use crate::instances::{OpError, chain};
use crate::store::{ImageRecord, Store, StoreError};

/// An image by one of its names.
#[derive(Debug, Clone)]
pub struct NamedImage {
    /// Normalised reference.
    pub name: String,
    /// Its digest, for records.
    pub digest: String,
    /// What is known of it.
    pub record: ImageRecord,
}

/// Why an image operation failed.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// The archive was refused or could not be converted.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// No such image.
    #[error("no image {0:?} on this host; import it with: coppice image import FILE")]
    NotFound(String),
    /// The text is no image reference.
    #[error("{0:?} is not an image reference")]
    BadName(String),
    /// The archive names no image and neither does the request.
    #[error(
        "the archive names no image; say how to call it: coppice image import FILE --name NAME"
    )]
    Nameless,
    /// The records failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All images of this host.
pub struct Images {
    store: Arc<Store>,
    roots: Arc<ImageStore>,
    now: fn() -> UnixMillis,
}

impl Images {
    /// Opens the images and removes root disks that no record names.
    pub async fn open(
        store: Arc<Store>,
        roots: Arc<ImageStore>,
        now: fn() -> UnixMillis,
    ) -> Result<Self, ImagesError> {
        let known = store.run(|store| store.image_digests()).await?;
        for digest in roots.digests()? {
            if !known.contains(&digest.to_string()) {
                info!(%digest, "removing a root disk that no record names");
                roots.remove(&digest)?;
            }
        }
        Ok(Self { store, roots, now })
    }

    /// Imports an archive and lets its names, or `name`, mean it. Runs to its end even
    /// if the caller stops waiting, unless the archive breaks off.
    pub async fn import<R>(
        &self,
        archive: R,
        name: Option<String>,
    ) -> Result<NamedImage, ImagesError>
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        let name = name.map(|name| normalise(&name)).transpose()?;
        let roots = Arc::clone(&self.roots);
        let reader = SyncIoBridge::new(archive);
        let imported = tokio::task::spawn_blocking(move || {
            roots.import(reader, &Limits::default(), &mut |_progress| {})
        })
        .await
        .unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))?;
        let names = match name {
            Some(name) => vec![name],
            None => imported
                .references
                .iter()
                .map(|reference| normalise(reference))
                .collect::<Result<Vec<_>, _>>()?,
        };
        let Some(first) = names.first().cloned() else {
            return Err(ImagesError::Nameless);
        };
        let record = record(imported, (self.now)());
        let row = record.clone();
        self.store
            .run(move |store| store.put_image(&row, &names))
            .await?;
        info!(image = %first, digest = %record.digest, "imported");
        Ok(NamedImage {
            name: first,
            digest: record.digest.clone(),
            record,
        })
    }

    /// The image that a reference or a digest means.
    pub async fn resolve(&self, text: &str) -> Result<NamedImage, ImagesError> {
        let missing = || ImagesError::NotFound(text.to_owned());
        let name = normalise(text)?;
        let key = name.clone();
        let record = match self.store.run(move |store| store.image_named(&key)).await {
            Ok(record) => record,
            Err(StoreError::NotFound) => {
                let digest = text.to_owned();
                match self.store.run(move |store| store.image(&digest)).await {
                    Err(StoreError::NotFound) => return Err(missing()),
                    other => other?,
                }
            }
            Err(other) => return Err(other.into()),
        };
        Ok(NamedImage {
            name,
            digest: record.digest.clone(),
            record,
        })
    }

    /// Every name with its image.
    pub async fn list(&self) -> Result<Vec<NamedImage>, ImagesError> {
        let rows = self.store.run(|store| store.images()).await?;
        Ok(rows
            .into_iter()
            .map(|(name, record)| NamedImage {
                name,
                digest: record.digest.clone(),
                record,
            })
            .collect())
    }

    /// Removes a name, and the image with its last name.
    pub async fn remove(&self, text: &str) -> Result<(), ImagesError> {
        let name = normalise(text)?;
        let removed = self
            .store
            .run(move |store| store.remove_image_name(&name))
            .await
            .map_err(|error| match error {
                StoreError::NotFound => ImagesError::NotFound(text.to_owned()),
                other => other.into(),
            })?;
        if let Some(digest) = removed.and_then(|digest| digest.parse().ok()) {
            // The record is gone: a disk that stays is removed at the next start.
            if let Err(error) = self.roots.remove(&digest) {
                warn!(%digest, why = %chain(&error), "a root disk is left for the next start");
            }
        }
        Ok(())
    }
}

impl From<ImagesError> for OpError {
    fn from(error: ImagesError) -> Self {
        match error {
            ImagesError::NotFound(name) => Self::NoImage(name),
            ImagesError::Store(error) => error.into(),
            other @ (ImagesError::Import(_) | ImagesError::BadName(_) | ImagesError::Nameless) => {
                Self::Refused(model::Refusal::request(chain(&other)))
            }
        }
    }
}

fn normalise(text: &str) -> Result<String, ImagesError> {
    text.parse::<Reference>()
        .map(|reference| reference.to_string())
        .map_err(|_| ImagesError::BadName(text.to_owned()))
}

fn record(imported: Imported, now: UnixMillis) -> ImageRecord {
    let config = imported.config;
    ImageRecord {
        digest: imported.digest.to_string(),
        platform: config.platform.to_string(),
        size_bytes: imported.size_bytes,
        rootfs_sha256: imported.rootfs_sha256.to_string(),
        entrypoint: config.entrypoint,
        cmd: config.cmd,
        env: config.env,
        working_dir: config.working_dir,
        user: config.user,
        stop_signal: config.stop_signal.unwrap_or_default(),
        labels: config.labels,
        created_at: now,
    }
}
