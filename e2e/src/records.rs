//! The daemon's records, reached past the daemon: for damaging them.

use std::time::Duration;

use rusqlite::{Connection, params};

use crate::Daemon;

/// The database that the daemon works with at the same time.
#[derive(Debug)]
pub struct Records(Connection);

impl Records {
    /// Opens the daemon's database beside it.
    #[must_use]
    pub fn open(daemon: &Daemon) -> Self {
        let connection =
            Connection::open(daemon.data().join("coppice.db")).expect("the daemon's database");
        connection
            .busy_timeout(Duration::from_secs(10))
            .expect("a timeout");
        Self(connection)
    }

    /// An instance's record as it is kept.
    #[must_use]
    pub fn read(&self, id: &str) -> String {
        self.0
            .query_row("SELECT record FROM instances WHERE id = ?1", [id], |row| {
                row.get(0)
            })
            .expect("a record")
    }

    /// Replaces an instance's record.
    pub fn write(&self, id: &str, record: &str) {
        let changed = self
            .0
            .execute(
                "UPDATE instances SET record = ?2 WHERE id = ?1",
                params![id, record],
            )
            .expect("the record can be written");
        assert_eq!(changed, 1, "there is no record of {id}");
    }

    /// How many records name an instance as their parent.
    #[must_use]
    pub fn forks_of(&self, id: &str) -> i64 {
        self.0
            .query_row(
                "SELECT count(*) FROM instances WHERE parent = ?1",
                [id],
                |row| row.get(0),
            )
            .expect("a count")
    }
}
