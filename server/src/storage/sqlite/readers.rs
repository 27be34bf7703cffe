//! A few read-only connections, lent to blocking tasks. Readers never wait for the writer (WAL).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use super::schema::prepare_once;
use crate::storage::StoreError;

/// Connections, and so readings at the same time.
const CONNECTIONS: usize = 4;
/// Of a connection. SQLite empties it after every commit of the writer: more would hardly ever be read twice.
const CACHE_KIB: i32 = 256;

/// The connections that are not lent.
#[derive(Clone)]
pub(super) struct Readers {
    path: PathBuf,
    free: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    /// Opens the first connection, so that a database that cannot be read is noticed at the start.
    pub(super) fn open(path: &Path) -> rusqlite::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            free: Arc::new(Mutex::new(vec![connect(path)?])),
            permits: Arc::new(Semaphore::new(CONNECTIONS)),
        })
    }

    /// Runs `work` in one read transaction: all its statements see the same state.
    pub(super) async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let permit =
            Arc::clone(&self.permits).acquire_owned().await.map_err(|_| StoreError::Stopping)?;
        let readers = self.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let mut db = readers.lend()?;
            let result = db.transaction().and_then(|reading| work(&reading));
            readers.free.lock().unwrap_or_else(PoisonError::into_inner).push(db);
            result
        });
        Ok(reading.await.map_err(|_| StoreError::Stopping)??)
    }

    /// Lends no more.
    pub(super) fn close(&self) {
        self.permits.close();
        self.free.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn lend(&self) -> rusqlite::Result<Connection> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        free.map_or_else(|| connect(&self.path), Ok)
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    prepare_once(&db)?;
    db.pragma_update(None, "cache_size", -CACHE_KIB)?;
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(db)
}
