//! The use cases of images: import, look-up by name, removal.

use std::sync::Arc;

use images::{Digest, ImageStore, ImportError, Imported, Limits, Reference};
use model::UnixMillis;
use tokio::io::AsyncRead;
use tokio::sync::{Mutex, Semaphore};
use tokio_util::io::SyncIoBridge;
use tracing::{info, warn};

use crate::instances::chain;
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
    /// A name that is to be given holds a digest.
    #[error("{0:?} holds a digest, which an image has by itself; leave it out of the name")]
    DigestInName(String),
    /// The archive names no image and neither does the request.
    #[error(
        "the archive names no image; say how to call it: coppice image import FILE --name NAME"
    )]
    Nameless,
    /// Somebody removed the image while it was being imported.
    #[error("the image {0:?} was removed while it was being imported; import it again")]
    Removed(String),
    /// The records failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Archives that are unpacked at one time: each takes a thread, the space of the unpacked
/// image and much of a disk's time. Further ones wait with their bodies unread.
const PARALLEL_IMPORTS: usize = 2;

/// All images of this host.
#[derive(Clone)]
pub struct Images {
    store: Arc<Store>,
    roots: Arc<ImageStore>,
    now: fn() -> UnixMillis,
    importing: Arc<Semaphore>,
    /// Held while records and root disks are brought in step, so that a removal cannot
    /// take the disk that an import has just found and is about to record.
    settling: Arc<Mutex<()>>,
}

impl Images {
    /// Opens the images; removes those that have lost their names and are not used, and
    /// root disks that no record names.
    pub async fn open(
        store: Arc<Store>,
        roots: Arc<ImageStore>,
        now: fn() -> UnixMillis,
    ) -> Result<Self, ImagesError> {
        let nameless = store.run(|store| store.drop_nameless_images()).await?;
        for digest in nameless {
            info!(%digest, "removing an image without a name that nothing uses any more");
        }
        let known = store.run(|store| store.image_digests()).await?;
        for digest in roots.digests()? {
            if !known.contains(&digest.to_string()) {
                info!(%digest, "removing a root disk that no record names");
                roots.remove(&digest)?;
            }
        }
        Ok(Self {
            store,
            roots,
            now,
            importing: Arc::new(Semaphore::new(PARALLEL_IMPORTS)),
            settling: Arc::default(),
        })
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
        let name = name.map(|name| own_name(&name)).transpose()?;
        let images = self.clone();
        // In a task of its own: a client that hangs up after the last byte must not leave
        // a root disk without a record.
        let work = tokio::spawn(async move { images.unpack_and_record(archive, name).await });
        match work.await {
            Ok(result) => result,
            Err(failed) => std::panic::resume_unwind(failed.into_panic()),
        }
    }

    async fn unpack_and_record<R>(
        &self,
        archive: R,
        name: Option<String>,
    ) -> Result<NamedImage, ImagesError>
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        // The semaphore is never closed, so there is no error but a permit.
        let _turn = self.importing.acquire().await;
        let roots = Arc::clone(&self.roots);
        let reader = SyncIoBridge::new(archive);
        let imported = tokio::task::spawn_blocking(move || {
            roots.import(reader, &Limits::default(), &mut |_progress| {})
        })
        .await
        .unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))?;
        let _settled = self.settling.lock().await;
        let digest = imported.digest;
        let recorded = self.record(imported, name).await;
        if recorded.is_err() {
            self.drop_unrecorded(digest).await;
        }
        recorded
    }

    async fn record(
        &self,
        imported: Imported,
        name: Option<String>,
    ) -> Result<NamedImage, ImagesError> {
        let names = match name {
            Some(name) => vec![name],
            None => names_in(&imported)?,
        };
        let Some(first) = names.first().cloned() else {
            return Err(ImagesError::Nameless);
        };
        if self.roots.rootfs(&imported.digest).is_none() {
            return Err(ImagesError::Removed(first));
        }
        let record = record(imported, (self.now)());
        let row = record.clone();
        let gone = self
            .store
            .run(move |store| store.put_image(&row, &names))
            .await?;
        self.drop_disks(&gone);
        info!(image = %first, digest = %record.digest, "imported");
        Ok(NamedImage {
            name: first,
            digest: record.digest.clone(),
            record,
        })
    }

    /// The image that a name or a digest means. A name with a digest means that digest.
    pub async fn resolve(&self, text: &str) -> Result<NamedImage, ImagesError> {
        let key = Key::parse(text)?;
        let name = key.text();
        let record = self
            .store
            .run(move |store| match &key {
                Key::Name(name) => store.image_named(name),
                Key::Digest { digest, .. } => store.image(&digest.to_string()),
            })
            .await
            .map_err(missing(text))?;
        Ok(NamedImage {
            name,
            digest: record.digest.clone(),
            record,
        })
    }

    /// Every name with its image; an image without a name goes by its digest.
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

    /// Removes a name, and the image with its last name; by its digest an image with
    /// all its names.
    pub async fn remove(&self, text: &str) -> Result<(), ImagesError> {
        let key = Key::parse(text)?;
        let _settled = self.settling.lock().await;
        let removed = self
            .store
            .run(move |store| match &key {
                Key::Name(name) => store.remove_image_name(name),
                Key::Digest { digest, .. } => {
                    let digest = digest.to_string();
                    store.remove_image(&digest).map(|()| Some(digest))
                }
            })
            .await
            .map_err(missing(text))?;
        self.drop_disks(removed.as_slice());
        Ok(())
    }

    /// Removes a root disk unless it belongs to an image that was there before.
    async fn drop_unrecorded(&self, digest: Digest) {
        let text = digest.to_string();
        let key = text.clone();
        let known = self.store.run(move |store| store.image(&key)).await;
        if matches!(known, Err(StoreError::NotFound)) {
            self.drop_disks(&[text]);
        }
    }

    /// Removes root disks whose records are gone. One that stays is removed at the next
    /// start.
    fn drop_disks(&self, digests: &[String]) {
        for digest in digests.iter().filter_map(|digest| digest.parse().ok()) {
            if let Err(error) = self.roots.remove(&digest) {
                warn!(%digest, why = %chain(&error), "a root disk is left for the next start");
            }
        }
    }
}

/// How an image is asked for.
enum Key {
    /// By its normalised name.
    Name(String),
    /// By its digest, perhaps with a name before it.
    Digest {
        name: Option<String>,
        digest: Digest,
    },
}

impl Key {
    fn parse(text: &str) -> Result<Self, ImagesError> {
        if let Ok(digest) = text.parse() {
            return Ok(Self::Digest { name: None, digest });
        }
        let reference = parse(text)?;
        let name = reference.to_string();
        Ok(match reference.digest() {
            Some(digest) => Self::Digest {
                name: Some(name),
                digest: *digest,
            },
            None => Self::Name(name),
        })
    }

    fn text(&self) -> String {
        match self {
            Self::Name(name)
            | Self::Digest {
                name: Some(name), ..
            } => name.clone(),
            Self::Digest { name: None, digest } => digest.to_string(),
        }
    }
}

fn missing(text: &str) -> impl FnOnce(StoreError) -> ImagesError {
    let text = text.to_owned();
    move |error| match error {
        StoreError::NotFound => ImagesError::NotFound(text),
        other => other.into(),
    }
}

/// A name that somebody gives an image. Which digest it has is not for them to say.
fn own_name(text: &str) -> Result<String, ImagesError> {
    let reference = parse(text)?;
    if reference.digest().is_some() {
        return Err(ImagesError::DigestInName(text.to_owned()));
    }
    Ok(reference.to_string())
}

/// The names that an archive gives its image. Those with a digest need no record.
fn names_in(imported: &Imported) -> Result<Vec<String>, ImagesError> {
    let mut names = Vec::new();
    for text in &imported.references {
        let reference = parse(text)?;
        if reference.digest().is_none() {
            names.push(reference.to_string());
        }
    }
    Ok(names)
}

fn parse(text: &str) -> Result<Reference, ImagesError> {
    text.parse()
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
