//! Records of images: what a name means, and what the image's config says.

use std::collections::BTreeMap;

use model::UnixMillis;
use rusqlite::{OptionalExtension, Transaction, params};

use super::{Store, StoreError};

/// One image. The same digest may have several names.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ImageRecord {
    /// `sha256:…`, also the name of its root disk.
    pub digest: String,
    /// `os/arch`.
    pub platform: String,
    /// Size of the root disk in bytes.
    pub size_bytes: u64,
    /// Digest of the root disk file itself, in hex.
    pub rootfs_sha256: String,
    /// Entrypoint of the image.
    pub entrypoint: Vec<String>,
    /// Cmd of the image.
    pub cmd: Vec<String>,
    /// Environment of the image, `KEY=value`.
    pub env: Vec<String>,
    /// Working directory; empty = `/`.
    pub working_dir: String,
    /// User; empty = root.
    pub user: String,
    /// Stop signal by name or number; empty = SIGTERM.
    pub stop_signal: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// When it was imported.
    pub created_at: UnixMillis,
}

impl Store {
    /// Records an image and lets `names` mean it from now on. Answers the digests of
    /// images that went, because the names were their last and no instance uses them.
    pub fn put_image(
        &self,
        image: &ImageRecord,
        names: &[String],
    ) -> Result<Vec<String>, StoreError> {
        let text = serde_json::to_string(image).map_err(|error| bad(&image.digest, &error))?;
        self.write(|tx| {
            tx.execute(
                "INSERT INTO images (digest, created_at, record) VALUES (?1, ?2, ?3)
                 ON CONFLICT (digest) DO UPDATE SET record = excluded.record",
                params![image.digest, image.created_at.0, text],
            )?;
            for name in names {
                tx.execute(
                    "INSERT INTO image_names (name, digest) VALUES (?1, ?2)
                     ON CONFLICT (name) DO UPDATE SET digest = excluded.digest",
                    params![name, image.digest],
                )?;
            }
            drop_nameless(tx)
        })
    }

    /// Removes images that have no name and that no instance uses: their names have
    /// moved on to other images. Answers their digests.
    pub fn drop_nameless_images(&self) -> Result<Vec<String>, StoreError> {
        self.write(drop_nameless)
    }

    /// The image with this digest.
    pub fn image(&self, digest: &str) -> Result<ImageRecord, StoreError> {
        self.read(|tx| image(tx, digest)?.ok_or(StoreError::NotFound))
    }

    /// The image that `name` means.
    pub fn image_named(&self, name: &str) -> Result<ImageRecord, StoreError> {
        self.read(|tx| {
            let digest: Option<String> = tx
                .prepare_cached("SELECT digest FROM image_names WHERE name = ?1")?
                .query_row([name], |row| row.get(0))
                .optional()?;
            match digest {
                Some(digest) => image(tx, &digest)?.ok_or(StoreError::NotFound),
                None => Err(StoreError::NotFound),
            }
        })
    }

    /// Every name with its image, by name. An image without a name goes by its digest.
    pub fn images(&self) -> Result<Vec<(String, ImageRecord)>, StoreError> {
        self.read(|tx| {
            let mut query = tx.prepare_cached(
                "SELECT coalesce(n.name, i.digest) AS name, i.digest, i.record FROM images i
                 LEFT JOIN image_names n ON n.digest = i.digest ORDER BY name",
            )?;
            let rows = query.query_map([], |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, String>(2)?,
                ))
            })?;
            rows.map(|row| {
                let (name, digest, text) = row?;
                Ok((name, decode(&digest, &text)?))
            })
            .collect()
        })
    }

    /// Digests of all images.
    pub fn image_digests(&self) -> Result<Vec<String>, StoreError> {
        self.read(|tx| {
            let mut query = tx.prepare_cached("SELECT digest FROM images")?;
            let rows = query.query_map([], |row| row.get(0))?;
            rows.map(|row| row.map_err(StoreError::from)).collect()
        })
    }

    /// Removes a name; answers the digest if that was its last name and the image
    /// went with it. Refused while instances use the image and this is its last name.
    pub fn remove_image_name(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.write(|tx| {
            let digest: String = tx
                .query_row(
                    "DELETE FROM image_names WHERE name = ?1 RETURNING digest",
                    [name],
                    |row| row.get(0),
                )
                .optional()?
                .ok_or(StoreError::NotFound)?;
            let named: i64 = tx.query_row(
                "SELECT count(*) FROM image_names WHERE digest = ?1",
                [&digest],
                |row| row.get(0),
            )?;
            if named > 0 {
                return Ok(None);
            }
            remove_unused(tx, &digest)?;
            Ok(Some(digest))
        })
    }

    /// Removes an image with all its names. Refused while instances use it.
    pub fn remove_image(&self, digest: &str) -> Result<(), StoreError> {
        self.write(|tx| {
            if image(tx, digest)?.is_none() {
                return Err(StoreError::NotFound);
            }
            remove_unused(tx, digest)
        })
    }
}

fn remove_unused(tx: &Transaction<'_>, digest: &str) -> Result<(), StoreError> {
    let used: i64 = tx.query_row(
        "SELECT count(*) FROM instances WHERE image_digest = ?1",
        [digest],
        |row| row.get(0),
    )?;
    if used > 0 {
        return Err(StoreError::ImageInUse(used.unsigned_abs()));
    }
    // Names go with it, by their foreign key.
    tx.execute("DELETE FROM images WHERE digest = ?1", [digest])?;
    Ok(())
}

fn drop_nameless(tx: &Transaction<'_>) -> Result<Vec<String>, StoreError> {
    let mut query = tx.prepare_cached(
        "DELETE FROM images
         WHERE NOT EXISTS (SELECT 1 FROM image_names n WHERE n.digest = images.digest)
           AND NOT EXISTS (SELECT 1 FROM instances i WHERE i.image_digest = images.digest)
         RETURNING digest",
    )?;
    let rows = query.query_map([], |row| row.get(0))?;
    rows.map(|row| row.map_err(StoreError::from)).collect()
}

fn image(tx: &Transaction<'_>, digest: &str) -> Result<Option<ImageRecord>, StoreError> {
    let text: Option<String> = tx
        .prepare_cached("SELECT record FROM images WHERE digest = ?1")?
        .query_row([digest], |row| row.get(0))
        .optional()?;
    text.map(|text| decode(digest, &text)).transpose()
}

fn decode(digest: &str, text: &str) -> Result<ImageRecord, StoreError> {
    serde_json::from_str(text).map_err(|error| bad(digest, &error))
}

fn bad(digest: &str, error: &serde_json::Error) -> StoreError {
    StoreError::BadRecord {
        id: digest.to_owned(),
        why: error.to_string(),
    }
}
