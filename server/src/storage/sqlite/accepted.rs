//! Which submissions were accepted. The table is a log in the order of arrival and has no index: random keys in one
//! would have every message write a page of its own. What finds a key is in memory, and is read at the start.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, params};

/// Finds the row of a key by half of it. A row may be gone or another's by now (a transaction that was rolled
/// back), so the row has the last word.
#[derive(Default)]
pub(super) struct Accepted(Mutex<HashMap<u64, i64>>);

impl Accepted {
    /// Reads the log.
    pub(super) fn load(db: &Connection) -> rusqlite::Result<Self> {
        let mut query = db.prepare("SELECT key, id FROM submission ORDER BY id")?;
        let rows = query.query_map([], |row| Ok((half(&row.get(0)?), row.get(1)?)))?;
        Ok(Self(Mutex::new(rows.collect::<rusqlite::Result<_>>()?)))
    }

    /// Writes a submission down. False if it was there.
    pub(super) fn note(
        &self,
        db: &Connection,
        key: &[u8; 16],
        at_ms: i64,
    ) -> rusqlite::Result<bool> {
        if self.contains(db, key)? {
            return Ok(false);
        }
        let sql = "INSERT INTO submission (key, at_ms) VALUES (?1, ?2)";
        db.prepare_cached(sql)?.execute(params![key, at_ms])?;
        self.lock().insert(half(key), db.last_insert_rowid());
        Ok(true)
    }

    pub(super) fn contains(&self, db: &Connection, key: &[u8; 16]) -> rusqlite::Result<bool> {
        let Some(row) = self.lock().get(&half(key)).copied() else { return Ok(false) };
        let sql = "SELECT 1 FROM submission WHERE id = ?1 AND key = ?2";
        db.prepare_cached(sql)?.exists(params![row, key])
    }

    /// Drops up to so many of the oldest that are from before this time. Gives how many.
    pub(super) fn forget(
        &self,
        db: &Connection,
        before_ms: i64,
        slice: i64,
    ) -> rusqlite::Result<usize> {
        let sql = "SELECT id, key, at_ms FROM submission ORDER BY id LIMIT ?1";
        let mut query = db.prepare_cached(sql)?;
        let rows = query.query_map([slice], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let rows = rows.collect::<rusqlite::Result<Vec<(i64, [u8; 16], i64)>>>()?;
        let old: Vec<_> = rows.into_iter().take_while(|(_, _, at_ms)| *at_ms < before_ms).collect();
        let mut delete = db.prepare_cached("DELETE FROM submission WHERE id = ?1")?;
        for (row, key, _) in &old {
            delete.execute([row])?;
            let mut rows = self.lock();
            if rows.get(&half(key)) == Some(row) {
                rows.remove(&half(key));
            }
        }
        Ok(old.len())
    }

    /// The map is whole between statements, so a poisoned lock does no harm.
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Half the memory of the whole key. Of hashes, two that agree are not to be expected, and would cost the older one its
/// place alone.
fn half(key: &[u8; 16]) -> u64 {
    let key = u128::from_be_bytes(*key);
    ((key >> 64) as u64).rotate_left(1) ^ key as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> Connection {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(include_str!("../migrations/sqlite/0001_first.sql")).unwrap();
        db
    }

    #[test]
    fn submission_is_noted_once_also_after_a_start_and_until_it_is_old() {
        let db = database();
        let accepted = Accepted::load(&db).unwrap();
        assert!(accepted.note(&db, &[1; 16], 10).unwrap());
        assert!(!accepted.note(&db, &[1; 16], 11).unwrap());
        let accepted = Accepted::load(&db).unwrap();
        assert!(!accepted.note(&db, &[1; 16], 12).unwrap());
        assert!(accepted.note(&db, &[2; 16], 12).unwrap());
        assert_eq!(accepted.forget(&db, 11, 100).unwrap(), 1);
        assert!(!accepted.contains(&db, &[1; 16]).unwrap());
        assert!(accepted.contains(&db, &[2; 16]).unwrap());
        assert!(accepted.note(&db, &[1; 16], 13).unwrap());
    }

    #[test]
    fn rolled_back_submission_was_not_accepted_even_when_its_row_is_used_again() {
        let db = database();
        let accepted = Accepted::load(&db).unwrap();
        db.execute_batch("BEGIN").unwrap();
        assert!(accepted.note(&db, &[1; 16], 1).unwrap());
        db.execute_batch("ROLLBACK").unwrap();
        assert!(!accepted.contains(&db, &[1; 16]).unwrap());
        assert!(accepted.note(&db, &[2; 16], 1).unwrap());
        assert!(accepted.note(&db, &[1; 16], 1).unwrap());
        assert!(!accepted.note(&db, &[2; 16], 1).unwrap());
    }
}
