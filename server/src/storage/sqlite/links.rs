//! Links: a token of a device makes a further one, once.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::accounts::put_device;
use super::{devices, keys};
use crate::storage::device_rows::{FoundLink, NewDevice};
use crate::storage::{AccountId, LinkAnswer, LinkRow, LinkState, Linking, MailboxId, OpeningLink};

/// Links that one purge takes.
const SLICE: i64 = 500;

pub(super) fn open(db: &Connection, opening: &OpeningLink) -> rusqlite::Result<bool> {
    let account = db
        .prepare_cached("SELECT account FROM device WHERE id = ?1")?
        .query_row([opening.by.0], |row| row.get(0))
        .optional()?;
    let Some(account) = account else { return Ok(false) };
    end_open(db, account)?;
    let sql =
        "INSERT INTO device_link (id, account, token_hash, expires_ms) VALUES (?1, ?2, ?3, ?4)";
    let values = params![opening.id, account, opening.token_hash, opening.expires_ms];
    db.prepare_cached(sql)?.execute(values)?;
    Ok(true)
}

/// Those of the account that have made no device are worth nothing any more.
pub(super) fn end_open(db: &Connection, account: i64) -> rusqlite::Result<()> {
    let sql = "DELETE FROM device_link WHERE account = ?1 AND device IS NULL";
    db.prepare_cached(sql)?.execute([account]).map(drop)
}

pub(super) fn of_token(
    db: &Connection,
    token_hash: &[u8; 32],
    now_ms: i64,
) -> rusqlite::Result<Option<LinkRow>> {
    let sql = "SELECT a.id, a.identity_key FROM device_link l JOIN account a ON a.id = l.account \
               WHERE l.token_hash = ?1 AND l.expires_ms > ?2";
    let row = |row: &Row<'_>| Ok(LinkRow { account_row: row.get(0)?, identity_key: row.get(1)? });
    db.prepare_cached(sql)?.query_row(params![token_hash, now_ms], row).optional()
}

pub(super) fn state(
    db: &Connection,
    id: &[u8; 16],
    now_ms: i64,
) -> rusqlite::Result<Option<LinkState>> {
    let sql = "SELECT l.account, d.device FROM device_link l LEFT JOIN device d ON d.id = l.device \
               WHERE l.id = ?1 AND l.expires_ms > ?2";
    let row = |row: &Row<'_>| Ok(LinkState { account_row: row.get(0)?, device: row.get(1)? });
    db.prepare_cached(sql)?.query_row(params![id, now_ms], row).optional()
}

pub(super) fn link(db: &Connection, new: &Linking) -> rusqlite::Result<LinkAnswer> {
    let Some(found) = find(db, new)? else { return Ok(LinkAnswer::NoLink) };
    match found.made {
        Some((row, registration)) if registration == new.registration => {
            renew(db, &found, row, new)
        }
        Some(_) => Ok(LinkAnswer::NoLink),
        None => make(db, &found, new),
    }
}

fn find(db: &Connection, new: &Linking) -> rusqlite::Result<Option<FoundLink>> {
    let sql = "SELECT a.aci, a.id, l.device, l.registration FROM device_link l JOIN account a ON a.id = l.account \
               WHERE l.token_hash = ?1 AND l.expires_ms > ?2";
    let found = |row: &Row<'_>| {
        let made = Option::zip(row.get(2)?, row.get(3)?);
        Ok(FoundLink { account: AccountId(row.get(0)?), account_row: row.get(1)?, made })
    };
    db.prepare_cached(sql)?.query_row(params![new.link, new.now_ms], found).optional()
}

fn renew(
    db: &Connection,
    found: &FoundLink,
    row: i64,
    new: &Linking,
) -> rusqlite::Result<LinkAnswer> {
    let sql = "UPDATE device SET token_hash = ?2 WHERE id = ?1 RETURNING device";
    let device =
        db.prepare_cached(sql)?.query_row(params![row, new.token_hash], |row| row.get(0))?;
    Ok(LinkAnswer::Renewed(found.linked(device, MailboxId(row)), 0))
}

fn make(db: &Connection, found: &FoundLink, new: &Linking) -> rusqlite::Result<LinkAnswer> {
    let account = found.account_row;
    let taken: Vec<u8> = devices::list(db, account)?.iter().map(|entry| entry.device).collect();
    let Some(device) = new.number(&taken) else { return Ok(LinkAnswer::Full) };
    let mailbox = put_device(db, &NewDevice::linked(account, device, new))?;
    keys::replace_all(db, mailbox, &new.keys)?;
    keys::forget_answers(db, account)?;
    let sql = "UPDATE device_link SET device = ?2, registration = ?3 WHERE token_hash = ?1";
    db.prepare_cached(sql)?.execute(params![new.link, mailbox.0, new.registration])?;
    Ok(LinkAnswer::Made(found.linked(device, mailbox)))
}

pub(super) fn purge(db: &Connection, now_ms: i64) -> rusqlite::Result<u64> {
    let sql = "DELETE FROM device_link WHERE rowid IN \
               (SELECT rowid FROM device_link WHERE expires_ms <= ?1 ORDER BY expires_ms LIMIT ?2)";
    Ok(db.prepare_cached(sql)?.execute([now_ms, SLICE])? as u64)
}
