//! Records of instances. The parent column, not the record's text, is the truth
//! about who was forked from whom.

use model::{InstanceId, InstanceRecord, UnixMillis};
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::{Store, StoreError};

/// One instance as the database knows it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its record.
    pub record: InstanceRecord,
    /// How many existing instances have it as their parent.
    pub live_forks: u64,
}

/// The answer to a look-up by id, name or id prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Exactly one.
    One(InstanceId),
    /// Several ids start with the text.
    Ambiguous(usize),
    /// None.
    Nothing,
}

/// A fork to be recorded, and what became of it.
#[derive(Debug)]
pub struct ForkRow {
    /// The record to insert.
    pub record: InstanceRecord,
    /// Set when the name is taken: this one was not inserted.
    pub refused: Option<StoreError>,
}

impl Store {
    /// Inserts a new instance.
    pub fn insert(&self, record: &InstanceRecord) -> Result<(), StoreError> {
        self.write(|tx| insert(tx, record))
    }

    /// Reads one instance and counts its live forks in the same transaction.
    pub fn instance(&self, id: &InstanceId) -> Result<Entry, StoreError> {
        self.read(|tx| {
            let record = load(tx, id)?;
            let live_forks = count_forks(tx, id)?;
            Ok(Entry { record, live_forks })
        })
    }

    /// Every instance, by creation. A record that cannot be decoded is an error of its
    /// own place in the list, so that the others can still be shown.
    pub fn instances(&self) -> Result<Vec<Result<Entry, StoreError>>, StoreError> {
        self.read(|tx| {
            let mut query = tx.prepare_cached(
                "SELECT i.id, i.parent, i.record,
                        (SELECT count(*) FROM instances f WHERE f.parent = i.id)
                 FROM instances i ORDER BY i.rowid",
            )?;
            let rows = query.query_map([], |row| {
                let live_forks: i64 = row.get(3)?;
                Ok(decode(row).map(|record| Entry {
                    record,
                    live_forks: live_forks.unsigned_abs(),
                }))
            })?;
            rows.map(|row| row.map_err(StoreError::from)).collect()
        })
    }

    /// How many instances have this one as their parent, for deciding: refuses where one of their records cannot be
    /// read, as [`Self::update_counted`] does.
    pub fn live_forks(&self, id: &InstanceId) -> Result<u64, StoreError> {
        self.read(|tx| count_forks_decoded(tx, id))
    }

    /// Changes one record. `change` sees the record as it is inside the transaction and
    /// may refuse; then nothing is written. For whatever depends on the number of live
    /// forks there is [`Self::update_counted`].
    pub fn update<T>(
        &self,
        id: &InstanceId,
        change: impl FnOnce(&mut InstanceRecord) -> Result<T, StoreError>,
    ) -> Result<(InstanceRecord, T), StoreError> {
        self.write(|tx| {
            let mut record = load(tx, id)?;
            let value = change(&mut record)?;
            save(tx, &record)?;
            Ok((record, value))
        })
    }

    /// As [`Self::update`], with the number of live forks counted in the same
    /// transaction: refused where one of their records cannot be read.
    pub fn update_counted<T>(
        &self,
        id: &InstanceId,
        change: impl FnOnce(&mut InstanceRecord, u64) -> Result<T, StoreError>,
    ) -> Result<(InstanceRecord, T), StoreError> {
        self.write(|tx| {
            let mut record = load(tx, id)?;
            let live_forks = count_forks_decoded(tx, id)?;
            let value = change(&mut record, live_forks)?;
            save(tx, &record)?;
            Ok((record, value))
        })
    }

    /// Records forks of `source` together with the change that making them needs on
    /// the source's own record (a promotion). `change` runs in the same transaction and
    /// may refuse. A fork whose name is taken is marked refused; the others are inserted.
    pub fn insert_forks(
        &self,
        source: &InstanceId,
        change: impl FnOnce(&mut InstanceRecord) -> Result<(), StoreError>,
        records: Vec<InstanceRecord>,
    ) -> Result<(InstanceRecord, Vec<ForkRow>), StoreError> {
        self.write(|tx| {
            let mut record = load(tx, source)?;
            change(&mut record)?;
            save(tx, &record)?;
            let mut rows = Vec::with_capacity(records.len());
            for fork in records {
                let refused = match insert(tx, &fork) {
                    Ok(()) => None,
                    Err(taken @ StoreError::NameTaken(_)) => Some(taken),
                    Err(other) => return Err(other),
                };
                rows.push(ForkRow {
                    record: fork,
                    refused,
                });
            }
            if !rows.is_empty()
                && let Some(first) = all_refused(&mut rows)
            {
                // None could be made: leave no trace, a promotion included.
                return Err(first);
            }
            Ok((record, rows))
        })
    }

    /// Removes a record. The database refuses while forks name it as their parent.
    pub fn remove(&self, id: &InstanceId) -> Result<(), StoreError> {
        self.write(|tx| {
            tx.execute("DELETE FROM instances WHERE id = ?1", [id.as_str()])?;
            Ok(())
        })
    }

    /// Finds an instance: exact id, else exact name, else unique id prefix.
    pub fn find(&self, key: &str) -> Result<Found, StoreError> {
        self.read(|tx| {
            let exact = tx
                .prepare_cached(
                    "SELECT id FROM instances WHERE id = ?1 OR name = ?1 ORDER BY id = ?1 DESC",
                )?
                .query_row([key], |row| row.get::<_, String>(0))
                .optional()?;
            if let Some(id) = exact {
                return parse_id(&id).map(Found::One);
            }
            if key.is_empty()
                || !key
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            {
                return Ok(Found::Nothing);
            }
            // '{' is the character after 'z': the range holds exactly the ids with the prefix.
            let mut query =
                tx.prepare_cached("SELECT id FROM instances WHERE id >= ?1 AND id < ?1 || '{'")?;
            let ids: Vec<String> = query
                .query_map([key], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            match ids.as_slice() {
                [] => Ok(Found::Nothing),
                [one] => parse_id(one).map(Found::One),
                several => Ok(Found::Ambiguous(several.len())),
            }
        })
    }

    /// Instances whose time has come. The time of a template with live forks comes when
    /// the last of them is gone: until then a deletion would only be refused.
    pub fn expired(&self, now: UnixMillis) -> Result<Vec<InstanceId>, StoreError> {
        self.read(|tx| {
            let mut query = tx.prepare_cached(
                "SELECT id FROM instances i WHERE expires_at <= ?1
                 AND NOT EXISTS (SELECT 1 FROM instances f WHERE f.parent = i.id)",
            )?;
            let ids: Vec<String> = query
                .query_map([now.0], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            ids.iter().map(|id| parse_id(id)).collect()
        })
    }
}

fn all_refused(rows: &mut [ForkRow]) -> Option<StoreError> {
    if rows.iter().all(|row| row.refused.is_some()) {
        rows.first_mut().and_then(|row| row.refused.take())
    } else {
        None
    }
}

fn insert(tx: &Transaction<'_>, record: &InstanceRecord) -> Result<(), StoreError> {
    let taken = tx
        .prepare_cached("SELECT 1 FROM instances WHERE name = ?1")?
        .exists([record.name.as_str()])?;
    if taken {
        return Err(StoreError::NameTaken(record.name.to_string()));
    }
    let has_image = tx
        .prepare_cached("SELECT 1 FROM images WHERE digest = ?1")?
        .exists([&record.spec.image_digest])?;
    if !has_image {
        return Err(StoreError::ImageGone(record.spec.image.clone()));
    }
    tx.prepare_cached(
        "INSERT INTO instances (id, name, image_digest, parent, expires_at, record)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        record.id.as_str(),
        record.name.as_str(),
        record.spec.image_digest,
        record.parent.as_ref().map(InstanceId::as_str),
        record.expires_at.map(|at| at.0),
        encode(record)?,
    ])?;
    Ok(())
}

fn save(tx: &Transaction<'_>, record: &InstanceRecord) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE instances SET expires_at = ?2, record = ?3 WHERE id = ?1")?
        .execute(params![
            record.id.as_str(),
            record.expires_at.map(|at| at.0),
            encode(record)?,
        ])?;
    Ok(())
}

fn load(tx: &Transaction<'_>, id: &InstanceId) -> Result<InstanceRecord, StoreError> {
    tx.prepare_cached("SELECT id, parent, record FROM instances WHERE id = ?1")?
        .query_row([id.as_str()], |row| Ok(decode(row)))
        .optional()?
        .ok_or(StoreError::NotFound)?
}

/// Counts forks for showing: fast, but refuses where a record is not even JSON.
fn count_forks(tx: &Transaction<'_>, id: &InstanceId) -> Result<u64, StoreError> {
    let (count, bad): (i64, Option<String>) = tx
        .prepare_cached(
            "SELECT count(*), min(CASE WHEN json_valid(record) THEN NULL ELSE id END)
             FROM instances WHERE parent = ?1",
        )?
        .query_row([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    match bad {
        Some(id) => Err(StoreError::BadRecord {
            id,
            why: "not JSON".to_owned(),
        }),
        None => Ok(count.unsigned_abs()),
    }
}

/// Counts forks for deciding: every record is decoded, and one that cannot be
/// makes the count, and so the decision, fail.
fn count_forks_decoded(tx: &Transaction<'_>, id: &InstanceId) -> Result<u64, StoreError> {
    let mut query =
        tx.prepare_cached("SELECT id, parent, record FROM instances WHERE parent = ?1")?;
    let mut rows = query.query([id.as_str()])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        decode(row)?;
        count += 1;
    }
    Ok(count)
}

/// Reads `id, parent, record` from the first three columns.
fn decode(row: &Row<'_>) -> Result<InstanceRecord, StoreError> {
    let id: String = row.get(0)?;
    let parent: Option<String> = row.get(1)?;
    let text: String = row.get(2)?;
    let bad = |why: String| StoreError::BadRecord {
        id: id.clone(),
        why,
    };
    let record: InstanceRecord =
        serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    if record.id.as_str() != id {
        return Err(bad("it names another instance".to_owned()));
    }
    if record.parent.as_ref().map(InstanceId::as_str) != parent.as_deref() {
        return Err(bad("its parent is not that of the row".to_owned()));
    }
    Ok(record)
}

fn encode(record: &InstanceRecord) -> Result<String, StoreError> {
    serde_json::to_string(record).map_err(|error| StoreError::BadRecord {
        id: record.id.to_string(),
        why: error.to_string(),
    })
}

fn parse_id(text: &str) -> Result<InstanceId, StoreError> {
    text.parse().map_err(|_| StoreError::BadRecord {
        id: text.to_owned(),
        why: "its id has not the form of an id".to_owned(),
    })
}
