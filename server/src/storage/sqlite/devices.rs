//! The devices of an account, and how one goes.

use rusqlite::{Connection, OptionalExtension, params};

use super::{keys, links, mailbox};
use crate::storage::{DeviceEntry, MailboxId};

pub(super) fn list(db: &Connection, account: i64) -> rusqlite::Result<Vec<DeviceEntry>> {
    let sql = "SELECT device, registration_id, name, made_day FROM device WHERE account = ?1 ORDER BY device";
    let mut query = db.prepare_cached(sql)?;
    let rows = query.query_map([account], |row| {
        Ok(DeviceEntry {
            device: row.get(0)?,
            registration_id: row.get(1)?,
            name: row.get::<_, Vec<u8>>(2)?.into(),
            made_day: row.get(3)?,
        })
    })?;
    rows.collect()
}

pub(super) fn name(
    db: &Connection,
    account: i64,
    device: u8,
    name: &[u8],
) -> rusqlite::Result<bool> {
    let sql = "UPDATE device SET name = ?3 WHERE account = ?1 AND device = ?2";
    Ok(db.prepare_cached(sql)?.execute(params![account, device, name])? > 0)
}

pub(super) fn remove(
    db: &Connection,
    account: i64,
    device: u8,
) -> rusqlite::Result<Option<MailboxId>> {
    let sql = "SELECT id FROM device WHERE account = ?1 AND device = ?2";
    let row = db.prepare_cached(sql)?.query_row(params![account, device], |row| row.get(0));
    let Some(row): Option<i64> = row.optional()? else { return Ok(None) };
    // Among those that are open may be one by which it could come back.
    links::end_open(db, account)?;
    db.prepare_cached("DELETE FROM device_link WHERE device = ?1")?.execute([row])?;
    keys::forget_answers(db, account)?;
    mailbox::remove(db, MailboxId(row))?;
    for table in ["prekey_once", "prekey_fixed", "prekey_state", "push"] {
        db.prepare_cached(&format!("DELETE FROM {table} WHERE device = ?1"))?.execute([row])?;
    }
    db.prepare_cached("UPDATE device_mark SET last = max(last, ?1)")?.execute([row])?;
    db.prepare_cached("DELETE FROM device WHERE id = ?1")?.execute([row])?;
    Ok(Some(MailboxId(row)))
}
