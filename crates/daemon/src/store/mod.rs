//! The records: the only part of the daemon that reads or writes the database.
//!
//! One SQLite file in WAL mode. Writers are serialised by a mutex and an immediate
//! transaction, so a decision made on a count holds when the change is committed.
//! Every method either happens as a whole or not at all. Methods block for a disk
//! write; async callers go through [`Store::run`].

mod error;
#[cfg(feature = "faults")]
mod hook;
mod images;
mod ingresses;
mod instances;
mod schema;
#[cfg(test)]
pub(crate) mod tests;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, Transaction, TransactionBehavior};

pub use error::StoreError;
#[cfg(feature = "faults")]
pub use hook::Hook;
pub use images::ImageRecord;
pub use ingresses::{IngressRecord, IngressRuleRecord};
pub use instances::{Entry, ForkRow, Found};

/// The open database.
pub struct Store {
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
    #[cfg(feature = "faults")]
    hook: Option<Arc<dyn Hook>>,
}

impl Store {
    /// Opens or creates the database at `path` and brings it to the newest version.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let mut writer = Connection::open(path)?;
        protect(path)?;
        schema::prepare(&mut writer)?;
        let reader = Connection::open(path)?;
        reader.pragma_update(None, "query_only", "ON")?;
        reader.busy_timeout(std::time::Duration::from_secs(5))?;
        Ok(Self {
            writer: Mutex::new(writer),
            reader: Mutex::new(reader),
            #[cfg(feature = "faults")]
            hook: None,
        })
    }

    /// Lets `hook` see every [`Store::run`] from now on.
    #[cfg(feature = "faults")]
    #[must_use]
    pub fn with_hook(self, hook: Arc<dyn Hook>) -> Self {
        Self {
            hook: Some(hook),
            ..self
        }
    }

    /// Runs `work` on a thread that may block. It runs to its end even if the caller
    /// stops waiting.
    pub async fn run<T, F>(self: &Arc<Self>, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    {
        #[cfg(feature = "faults")]
        if let Some(hook) = &self.hook {
            hook.before().await?;
        }
        let store = Arc::clone(self);
        let result = match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(result) => result,
            Err(failed) => std::panic::resume_unwind(failed.into_panic()),
        };
        #[cfg(feature = "faults")]
        if let Some(hook) = &self.hook {
            hook.after().await;
        }
        result
    }

    fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut connection = lock(&self.writer);
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = work(&tx)?;
        tx.commit()?;
        Ok(value)
    }

    /// One consistent view for everything that `work` reads.
    fn read<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut connection = lock(&self.reader);
        let tx = connection.transaction()?;
        work(&tx)
    }
}

/// Records hold the environments of instances, and with them secrets: they are for their
/// owner alone. SQLite gives the files beside the database the same mode.
fn protect(path: &Path) -> Result<(), StoreError> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(StoreError::Unprotected)
}

/// A panic while the lock was held cannot leave a half-made change: the transaction
/// was rolled back when it was dropped. So the poison mark carries no news.
fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}
