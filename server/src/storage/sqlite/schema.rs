//! Opening the database file and bringing its schema up to date.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

/// One step each, in order; `user_version` counts those that were taken.
const MIGRATIONS: [&str; 6] = [
    include_str!("../migrations/sqlite/0001_first.sql"),
    include_str!("../migrations/sqlite/0002_push.sql"),
    include_str!("../migrations/sqlite/0003_reports.sql"),
    include_str!("../migrations/sqlite/0005_life.sql"),
    include_str!("../migrations/sqlite/0006_takes.sql"),
    include_str!("../migrations/sqlite/0007_devices.sql"),
];
const KNOWN: u32 = MIGRATIONS.len() as u32;
const STATEMENTS: usize = 64;
/// Pages of log after which the writer copies them into the file.
const CHECKPOINT_PAGES: u32 = 4000;
const CACHE_KIB: i32 = 32 * 1024;

/// Why a database file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// SQLite cannot open or migrate it.
    #[error(
        "the database cannot be opened ({0}); check that the data directory is writable and the file is a database"
    )]
    Database(#[from] rusqlite::Error),
    /// A newer server has written it.
    #[error(
        "the database has schema {found}, this server knows {known}; use the newer server or a backup"
    )]
    Newer {
        /// In the file.
        found: u32,
        /// The last one known.
        known: u32,
    },
    /// The writing thread could not be started.
    #[error("the writing thread cannot be started ({0})")]
    Thread(#[from] std::io::Error),
}

/// Opens the file for writing, durable on every commit.
pub(super) fn open(path: &Path) -> Result<Connection, OpenError> {
    let mut db = Connection::open(path)?;
    prepare_once(&db)?;
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    db.pragma_update(None, "journal_mode", "wal")?;
    db.pragma_update(None, "synchronous", "full")?;
    db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    db.pragma_update(None, "cache_size", -CACHE_KIB)?;
    db.pragma_update(None, "temp_store", "memory")?;
    // Deleted envelopes are overwritten where that costs no further page.
    db.pragma_update(None, "secure_delete", "fast")?;
    migrate(&mut db)?;
    Ok(db)
}

/// The schema of a file, which is left as it is.
pub(super) fn version(path: &Path) -> Result<u32, OpenError> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let found: u32 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > KNOWN { Err(OpenError::Newer { found, known: KNOWN }) } else { Ok(found) }
}

/// Keeps statements, and keeps their plans: without the second, SQLite plans some of them anew at every binding.
pub(super) fn prepare_once(db: &Connection) -> rusqlite::Result<()> {
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// Writes nothing where nothing is new: a server that reads alone starts on a full disk.
fn migrate(db: &mut Connection) -> Result<(), OpenError> {
    let found: u32 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found == KNOWN {
        return Ok(());
    }
    // Another start may be migrating.
    let changing = db.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    let found: u32 = changing.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > KNOWN {
        return Err(OpenError::Newer { found, known: KNOWN });
    }
    for step in MIGRATIONS.iter().skip(found as usize) {
        changing.execute_batch(step)?;
    }
    changing.pragma_update(None, "user_version", KNOWN)?;
    Ok(changing.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_of_a_newer_server_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(open(&path), Err(OpenError::Newer { found: 99, .. })));
    }

    #[test]
    fn opening_what_is_up_to_date_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let first = open(&path).unwrap();
        let log = || std::fs::metadata(folder.path().join("db-wal")).unwrap().len();
        let version = || first.pragma_query_value(None, "data_version", |row| row.get::<_, i64>(0));
        let before = (log(), version().unwrap());
        // The first one is open, so that the log stays.
        drop(open(&path).unwrap());
        assert_eq!((log(), version().unwrap()), before);
    }

    #[test]
    fn opening_twice_migrates_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        drop(open(&path).unwrap());
        let db = open(&path).unwrap();
        let mode: String = db.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        let synchronous: i32 =
            db.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
        assert_eq!((mode.as_str(), synchronous), ("wal", 2));
    }
}
