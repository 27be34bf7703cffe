//! Which submissions were accepted. The table is a log in the order of arrival and has no index: random keys in one
//! would have every message write a page of its own. What finds a key is in memory, and is read at the start.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, params};

use super::WALK;
use super::walk::Walk;

/// Finds the row of a key by half of it. A row may be gone or another's by now (a transaction that was rolled
/// back), so the row has the last word.
#[derive(Default)]
pub(super) struct Accepted {
    rows: Mutex<HashMap<u64, i64>>,
    walk: Walk,
}

impl Accepted {
    /// Reads the log.
    pub(super) fn load(db: &Connection) -> rusqlite::Result<Self> {
        let mut query = db.prepare("SELECT key, id FROM submission ORDER BY id")?;
        let rows = query.query_map([], |row| Ok((half(&row.get(0)?), row.get(1)?)))?;
        let rows = Mutex::new(rows.collect::<rusqlite::Result<_>>()?);
        Ok(Self { rows, walk: Walk::default() })
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

    /// Drops up to so many of the oldest that are from before this time, or else what the walk finds of these: one may be
    /// before them that was taken in while the clock was wrong. Gives how many.
    pub(super) fn forget(
        &self,
        db: &Connection,
        before_ms: i64,
        slice: i64,
    ) -> rusqlite::Result<usize> {
        let mut old = part(db, 0, slice)?;
        old.truncate(old.iter().take_while(|row| row.at_ms < before_ms).count());
        if old.is_empty() {
            old = part(db, self.walk.after(), WALK)?;
            self.walk.came_to(old.last().map(|row| row.id));
            old.retain(|row| row.at_ms < before_ms);
        }
        let mut delete = db.prepare_cached("DELETE FROM submission WHERE id = ?1")?;
        for Submission { id, key, .. } in &old {
            delete.execute([id])?;
            let mut rows = self.lock();
            if rows.get(&half(key)) == Some(id) {
                rows.remove(&half(key));
            }
        }
        Ok(old.len())
    }

    /// The map is whole between statements, so a poisoned lock does no harm.
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, i64>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Submission {
    id: i64,
    key: [u8; 16],
    at_ms: i64,
}

/// So many rows after this one.
fn part(db: &Connection, after: i64, count: i64) -> rusqlite::Result<Vec<Submission>> {
    let sql = "SELECT id, key, at_ms FROM submission WHERE id > ?1 ORDER BY id LIMIT ?2";
    let mut query = db.prepare_cached(sql)?;
    let submission = |row: &rusqlite::Row<'_>| {
        Ok(Submission { id: row.get(0)?, key: row.get(1)?, at_ms: row.get(2)? })
    };
    query.query_map([after, count], submission)?.collect()
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
