//! Records of ingresses.

use model::{Tags, UnixMillis};
use rusqlite::{OptionalExtension as _, params};

use super::{Store, StoreError};

/// One ingress.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct IngressRecord {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its rules.
    pub rules: Vec<IngressRuleRecord>,
    /// The user's tags.
    pub tags: Tags,
    /// When it was made.
    pub created_at: UnixMillis,
}

/// One rule of an ingress, in the texts that were checked when it was made.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct IngressRuleRecord {
    /// Host name or pattern.
    pub hostname: String,
    /// Port of the host.
    pub port: u16,
    /// Instance by id or name, or a capture.
    pub instance: String,
    /// Port of the instance.
    pub target_port: u16,
    /// Clients speak TLS.
    pub tls: bool,
    /// Those who do not are sent there.
    pub redirect_http: bool,
    /// Header and value that requests must have.
    pub header_auth: Option<(String, String)>,
    /// Standby is woken.
    pub wake: bool,
}

impl std::fmt::Debug for IngressRuleRecord {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}:{} -> {}:{}",
            self.hostname, self.port, self.instance, self.target_port
        )
    }
}

impl Store {
    /// Records an ingress; its name must be free.
    pub fn insert_ingress(&self, ingress: &IngressRecord) -> Result<(), StoreError> {
        let text = serde_json::to_string(ingress).map_err(|error| bad(&ingress.id, &error))?;
        self.write(|tx| {
            let taken: i64 = tx.query_row(
                "SELECT count(*) FROM ingresses WHERE name = ?1",
                [&ingress.name],
                |row| row.get(0),
            )?;
            if taken > 0 {
                return Err(StoreError::NameTaken(ingress.name.clone()));
            }
            tx.execute(
                "INSERT INTO ingresses (id, name, created_at, record) VALUES (?1, ?2, ?3, ?4)",
                params![ingress.id, ingress.name, ingress.created_at.0, text],
            )?;
            Ok(())
        })
    }

    /// All ingresses, oldest first.
    pub fn ingresses(&self) -> Result<Vec<IngressRecord>, StoreError> {
        self.read(|tx| {
            let mut query =
                tx.prepare_cached("SELECT id, record FROM ingresses ORDER BY created_at, id")?;
            let rows = query.query_map([], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
            })?;
            rows.map(|row| {
                let (id, text) = row?;
                serde_json::from_str(&text).map_err(|error| bad(&id, &error))
            })
            .collect()
        })
    }

    /// Removes one.
    pub fn remove_ingress(&self, id: &str) -> Result<(), StoreError> {
        self.write(|tx| {
            tx.query_row(
                "DELETE FROM ingresses WHERE id = ?1 RETURNING id",
                [id],
                |_| Ok(()),
            )
            .optional()?
            .ok_or(StoreError::NotFound)
        })
    }
}

fn bad(id: &str, error: &serde_json::Error) -> StoreError {
    StoreError::BadRecord {
        id: id.to_owned(),
        why: error.to_string(),
    }
}
