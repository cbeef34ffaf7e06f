//! The tables and their numbered, forward-only migrations.

use rusqlite::Connection;

use super::StoreError;

/// Each entry brings the database from version `index` to `index + 1`.
/// A published entry is never edited: old databases have already run it.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE images (
        digest     TEXT PRIMARY KEY,
        created_at INTEGER NOT NULL,
        record     TEXT NOT NULL
    ) STRICT;
    CREATE TABLE image_names (
        name   TEXT PRIMARY KEY,
        digest TEXT NOT NULL REFERENCES images(digest) ON DELETE CASCADE
    ) STRICT;
    CREATE INDEX image_names_by_digest ON image_names(digest);
    CREATE TABLE instances (
        id           TEXT PRIMARY KEY,
        name         TEXT NOT NULL UNIQUE,
        image_digest TEXT NOT NULL REFERENCES images(digest) ON DELETE RESTRICT,
        -- The template lock, backed by the database itself: a row that is
        -- somebody's parent cannot be deleted.
        parent       TEXT REFERENCES instances(id) ON DELETE RESTRICT,
        expires_at   INTEGER,
        record       TEXT NOT NULL
    ) STRICT;
    CREATE INDEX instances_by_parent ON instances(parent) WHERE parent IS NOT NULL;
    CREATE INDEX instances_by_image ON instances(image_digest);
    CREATE INDEX instances_by_expiry ON instances(expires_at) WHERE expires_at IS NOT NULL;
",
    "
    CREATE TABLE ingresses (
        id         TEXT PRIMARY KEY,
        name       TEXT NOT NULL UNIQUE,
        created_at INTEGER NOT NULL,
        record     TEXT NOT NULL
    ) STRICT;
",
];

/// Sets the connection up and brings the database to the newest version.
pub(super) fn prepare(connection: &mut Connection) -> Result<(), StoreError> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL: an intent that was reported as recorded survives a power cut.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;

    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > known {
        return Err(StoreError::TooNew { found, known });
    }
    for (index, migration) in MIGRATIONS.iter().enumerate() {
        let version = i64::try_from(index).unwrap_or(i64::MAX) + 1;
        if version > found {
            let tx = connection.transaction()?;
            tx.execute_batch(migration)?;
            tx.pragma_update(None, "user_version", version)?;
            tx.commit()?;
        }
    }
    Ok(())
}
