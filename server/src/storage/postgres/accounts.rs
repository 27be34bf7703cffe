//! Accounts and devices.

use deadpool_postgres::{Object, Transaction};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::row::bytes;
use super::{devices, keys, links};
use crate::storage::device_rows::NewDevice;
use crate::storage::{
    AccountId, AccountRow, DeviceRow, MailboxId, RegisterAnswer, Registering, StoreError,
};

pub(super) async fn account(db: &Object, of: AccountId) -> Result<Option<AccountRow>, StoreError> {
    let sql = "SELECT id, identity_key, access_hash FROM account WHERE aci = $1";
    let query = db.prepare_cached(sql).await?;
    let row = db.query_opt(&query, &[&&of.0[..]]).await?;
    let account = |row: Row| {
        let (identity_key, access_hash) = (bytes(&row, 1)?, bytes(&row, 2)?);
        Ok(AccountRow { row: row.try_get(0)?, identity_key, access_hash })
    };
    row.map(account).transpose()
}

pub(super) async fn account_of_name(
    db: &Object,
    username: &str,
) -> Result<Option<AccountId>, StoreError> {
    let query = db.prepare_cached("SELECT aci FROM account WHERE username = $1").await?;
    let row = db.query_opt(&query, &[&username]).await?;
    row.map(|row| bytes(&row, 0).map(AccountId)).transpose()
}

pub(super) async fn device(
    db: &Object,
    account: AccountId,
    device: u8,
) -> Result<Option<DeviceRow>, StoreError> {
    let sql = "SELECT d.id, a.id, d.token_hash, a.identity_key FROM account a JOIN device d ON d.account = a.id \
               WHERE a.aci = $1 AND d.device = $2";
    let query = db.prepare_cached(sql).await?;
    let row = db.query_opt(&query, &[&&account.0[..], &i16::from(device)]).await?;
    let device = |row: Row| {
        Ok(DeviceRow {
            mailbox: MailboxId(row.try_get(0)?),
            account_row: row.try_get(1)?,
            token_hash: bytes(&row, 2)?,
            identity_key: bytes(&row, 3)?,
        })
    };
    row.map(device).transpose()
}

pub(super) async fn register(
    db: &mut Object,
    new: &Registering,
) -> Result<RegisterAnswer, StoreError> {
    let changing = db.transaction().await?;
    let Some((account_row, account)) = account_for(&changing, new).await? else {
        return Ok(RegisterAnswer::NameTaken);
    };
    let known = has_same_keys(&changing, account_row, new).await?;
    let (mailbox, epoch) = put_device(&changing, &NewDevice::registered(account_row, new)).await?;
    links::end_open(&changing, account_row).await?;
    if !known {
        keys::replace_all(&changing, mailbox, &new.keys).await?;
    }
    changing.commit().await?;
    Ok(RegisterAnswer::As(account, mailbox, epoch))
}

/// The account of the name, made if the name is free; none if another identity key has it. Its row stays locked.
async fn account_for(
    db: &Transaction<'_>,
    new: &Registering,
) -> Result<Option<(i64, AccountId)>, StoreError> {
    let sql = "INSERT INTO account (aci, username, identity_key, access_hash) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (username) DO NOTHING";
    let insert = db.prepare_cached(sql).await?;
    let (aci, key, hash) = (&new.fresh_account.0[..], &new.identity_key[..], &new.access_hash[..]);
    db.execute(&insert, &[&aci, &new.username, &key, &hash]).await?;
    let sql = "SELECT id, aci, identity_key FROM account WHERE username = $1 FOR UPDATE";
    let query = db.prepare_cached(sql).await?;
    let row = db.query_one(&query, &[&new.username]).await?;
    if bytes::<33>(&row, 2)? != new.identity_key {
        return Ok(None);
    }
    let account_row: i64 = row.try_get(0)?;
    let update = db.prepare_cached("UPDATE account SET access_hash = $2 WHERE id = $1").await?;
    db.execute(&update, &[&account_row, &hash]).await?;
    Ok(Some((account_row, AccountId(bytes(&row, 1)?))))
}

async fn has_same_keys(
    db: &Transaction<'_>,
    account: i64,
    new: &Registering,
) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM device WHERE account = $1 AND device = $2 AND registration_id = $3 AND registered_keys = $4";
    let query = db.prepare_cached(sql).await?;
    let (device, id) = (i16::from(new.device), i32::from(new.registration_id));
    let found = db.query_opt(&query, &[&account, &device, &id, &&new.keys.digest[..]]).await?;
    Ok(found.is_some())
}

/// One that is there keeps its number, and that of its mailbox, its name and day.
pub(super) async fn put_device(
    db: &Transaction<'_>,
    new: &NewDevice<'_>,
) -> Result<(MailboxId, i64), StoreError> {
    let sql = "INSERT INTO device (account, device, registration_id, token_hash, registered_keys, last_upload, name, made_day) \
               VALUES ($1, $2, $3, $4, $5, $5, $6, $7) ON CONFLICT (account, device) DO UPDATE SET \
               registration_id = $3, token_hash = $4, registered_keys = $5 RETURNING id";
    let insert = db.prepare_cached(sql).await?;
    let (device, id) = (i16::from(new.device), i32::from(new.registration_id));
    let (token, digest) = (&new.token_hash[..], &new.keys[..]);
    let values: [&(dyn ToSql + Sync); 7] =
        [&new.account, &device, &id, &token, &digest, &new.name, &new.day];
    let row = db.query_one(&insert, &values).await?;
    let mailbox = MailboxId(row.try_get(0)?);
    devices::lock_mailboxes(db, new.account).await?;
    // Connections of before are older than this, those of the new token newer.
    let insert = "INSERT INTO mailbox (device) VALUES ($1)
                  ON CONFLICT (device) DO UPDATE SET epoch = mailbox.epoch + 1 RETURNING epoch";
    let row = db.query_one(&db.prepare_cached(insert).await?, &[&mailbox.0]).await?;
    let epoch = row.try_get(0)?;
    devices::count_generation(db, new.account).await?;
    Ok((mailbox, epoch))
}
