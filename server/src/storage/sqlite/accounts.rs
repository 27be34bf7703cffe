//! Accounts and devices.

use rusqlite::{Connection, OptionalExtension, params};

use super::{keys, links};
use crate::storage::device_rows::NewDevice;
use crate::storage::{AccountId, AccountRow, DeviceRow, MailboxId, RegisterAnswer, Registering};

pub(super) fn account(db: &Connection, account: AccountId) -> rusqlite::Result<Option<AccountRow>> {
    db.prepare_cached("SELECT id, identity_key, access_hash FROM account WHERE aci = ?1")?
        .query_row([account.0], |row| {
            Ok(AccountRow { row: row.get(0)?, identity_key: row.get(1)?, access_hash: row.get(2)? })
        })
        .optional()
}

pub(super) fn account_of_name(
    db: &Connection,
    username: &str,
) -> rusqlite::Result<Option<AccountId>> {
    db.prepare_cached("SELECT aci FROM account WHERE username = ?1")?
        .query_row([username], |row| Ok(AccountId(row.get(0)?)))
        .optional()
}

pub(super) fn device(
    db: &Connection,
    account: AccountId,
    device: u8,
) -> rusqlite::Result<Option<DeviceRow>> {
    let sql = "SELECT d.id, a.id, d.token_hash, a.identity_key FROM account a JOIN device d ON d.account = a.id \
               WHERE a.aci = ?1 AND d.device = ?2";
    db.prepare_cached(sql)?
        .query_row(params![account.0, device], |row| {
            Ok(DeviceRow {
                mailbox: MailboxId(row.get(0)?),
                account_row: row.get(1)?,
                token_hash: row.get(2)?,
                identity_key: row.get(3)?,
            })
        })
        .optional()
}

pub(super) fn register(db: &Connection, new: &Registering) -> rusqlite::Result<RegisterAnswer> {
    let Some((row, account)) = account_for(db, new)? else { return Ok(RegisterAnswer::NameTaken) };
    let known = known_device(db, row, new)?;
    let mailbox = put_device(db, &NewDevice::registered(row, new))?;
    links::end_open(db, row)?;
    if known != Known::SameKeys {
        keys::replace_all(db, mailbox, &new.keys)?;
    }
    Ok(RegisterAnswer::As(account, mailbox, 0))
}

/// The account of the name, made if the name is free; none if another identity key has it.
fn account_for(db: &Connection, new: &Registering) -> rusqlite::Result<Option<(i64, AccountId)>> {
    let found = db
        .prepare_cached("SELECT id, aci, identity_key FROM account WHERE username = ?1")?
        .query_row([&new.username], |row| {
            Ok((row.get::<_, i64>(0)?, AccountId(row.get(1)?), row.get::<_, [u8; 33]>(2)?))
        })
        .optional()?;
    match found {
        Some((row, account, identity_key)) if identity_key == new.identity_key => {
            db.prepare_cached("UPDATE account SET access_hash = ?2 WHERE id = ?1")?
                .execute(params![row, new.access_hash])?;
            Ok(Some((row, account)))
        }
        Some(_) => Ok(None),
        None => {
            db.prepare_cached("INSERT INTO account (aci, username, identity_key, access_hash) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![new.fresh_account.0, new.username, new.identity_key, new.access_hash])?;
            Ok(Some((db.last_insert_rowid(), new.fresh_account)))
        }
    }
}

#[derive(PartialEq, Eq)]
enum Known {
    SameKeys,
    No,
}

fn known_device(db: &Connection, account: i64, new: &Registering) -> rusqlite::Result<Known> {
    let sql = "SELECT 1 FROM device WHERE account = ?1 AND device = ?2 AND registration_id = ?3 AND registered_keys = ?4";
    let same = db.prepare_cached(sql)?.exists(params![
        account,
        new.device,
        new.registration_id,
        new.keys.digest
    ])?;
    Ok(if same { Known::SameKeys } else { Known::No })
}

/// Its number, and that of its mailbox, is above that of any device there is or was. One that is there keeps it, with its name
/// and day.
pub(super) fn put_device(db: &Connection, new: &NewDevice<'_>) -> rusqlite::Result<MailboxId> {
    let sql = "INSERT INTO device (id, account, device, registration_id, token_hash, registered_keys, last_upload, name, made_day) \
               VALUES (1 + max((SELECT coalesce(max(id), 0) FROM device), (SELECT last FROM device_mark)), \
               ?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7) ON CONFLICT (account, device) DO UPDATE SET \
               registration_id = ?3, token_hash = ?4, registered_keys = ?5 RETURNING id";
    let NewDevice { account, device, registration_id, token_hash, keys, name, day } = new;
    let values = params![account, device, registration_id, *token_hash, *keys, name, day];
    let device = db.prepare_cached(sql)?.query_row(values, |row| row.get(0))?;
    db.prepare_cached("INSERT INTO mailbox (device) VALUES (?1) ON CONFLICT DO NOTHING")?
        .execute([device])?;
    Ok(MailboxId(device))
}
