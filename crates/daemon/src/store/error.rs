//! What can go wrong with the records.

use model::Refusal;

/// Why a store operation did not happen. Whatever the reason, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The rules refused it inside the transaction.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No such instance or image.
    #[error("not found")]
    NotFound,
    /// Another instance has the name.
    #[error("the name {0:?} is taken by another instance")]
    NameTaken(String),
    /// Instances still use the image.
    #[error("{0} instances still use the image; delete them first")]
    ImageInUse(u64),
    /// The image of a new instance was removed after it had been looked up.
    #[error("the image {0:?} has just been removed from this host; import it again")]
    ImageGone(String),
    /// A record is there but cannot be decoded, so nothing that depends on it is allowed.
    #[error("the record of instance {id} cannot be read: {why}")]
    BadRecord {
        /// The instance, as its row names it.
        id: String,
        /// What the decoder said.
        why: String,
    },
    /// The database is of a newer version than this program.
    #[error("the database has version {found}, this program knows up to {known}: upgrade coppiced")]
    TooNew {
        /// Version in the file.
        found: i64,
        /// Newest version known.
        known: i64,
    },
    /// The database could not be made readable for its owner alone.
    #[error("cannot protect the database")]
    Unprotected(#[source] std::io::Error),
    /// SQLite failed.
    #[error("the database failed")]
    Database(#[from] rusqlite::Error),
}
