//! The devices of an account, and how one goes. Whatever makes a device of an account or takes one away locks the account's row
//! first.

use std::collections::BTreeMap;

use deadpool_postgres::{Object, Transaction};
use tokio_postgres::Row;

use super::mailbox::{lock, release_payloads};
use super::row::{blob, bytes, small};
use super::{keys, links};
use crate::storage::{AccountId, DeviceEntry, MailboxId, StoreError};

/// The public id of the account, whose row stays locked.
pub(super) async fn lock_account(
    db: &Transaction<'_>,
    account: i64,
) -> Result<AccountId, StoreError> {
    let query = db.prepare_cached("SELECT aci FROM account WHERE id = $1 FOR UPDATE").await?;
    Ok(AccountId(bytes(&db.query_one(&query, &[&account]).await?, 0)?))
}

/// Locks the mailboxes of the account, in their order.
pub(super) async fn lock_mailboxes(db: &Transaction<'_>, account: i64) -> Result<(), StoreError> {
    let query = db.prepare_cached("SELECT id FROM device WHERE account = $1").await?;
    let all = db.query(&query, &[&account]).await?;
    let all = all.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i64>, _>>()?;
    lock(db, &all).await
}

/// What nodes remember of the account is of an older generation from now on. Its mailboxes are locked.
pub(super) async fn count_generation(db: &Transaction<'_>, account: i64) -> Result<(), StoreError> {
    let update = "UPDATE mailbox SET generation = generation + 1 \
                  WHERE device IN (SELECT id FROM device WHERE account = $1)";
    db.execute(&db.prepare_cached(update).await?, &[&account]).await?;
    Ok(())
}

pub(super) async fn list(db: &Object, account: i64) -> Result<Vec<DeviceEntry>, StoreError> {
    let sql = "SELECT device, registration_id, name, made_day FROM device WHERE account = $1 ORDER BY device";
    let rows = db.query(&db.prepare_cached(sql).await?, &[&account]).await?;
    let entry = |row: &Row| {
        Ok(DeviceEntry {
            device: small(row.try_get::<_, i16>(0)?)?,
            registration_id: small(row.try_get::<_, i32>(1)?)?,
            name: blob(row, 2)?,
            made_day: row.try_get(3)?,
        })
    };
    rows.iter().map(entry).collect()
}

pub(super) async fn name(
    db: &Object,
    account: i64,
    device: u8,
    name: &[u8],
) -> Result<bool, StoreError> {
    let sql = "UPDATE device SET name = $3 WHERE account = $1 AND device = $2";
    let update = db.prepare_cached(sql).await?;
    Ok(db.execute(&update, &[&account, &i16::from(device), &name]).await? > 0)
}

pub(super) async fn remove(
    db: &mut Object,
    account: i64,
    device: u8,
) -> Result<Option<MailboxId>, StoreError> {
    let changing = db.transaction().await?;
    lock_account(&changing, account).await?;
    let sql = "SELECT id FROM device WHERE account = $1 AND device = $2 FOR UPDATE";
    let query = changing.prepare_cached(sql).await?;
    let found = changing.query_opt(&query, &[&account, &i16::from(device)]).await?;
    let Some(found) = found else { return Ok(None) };
    let row: i64 = found.try_get(0)?;
    // Among those that are open may be one by which it could come back.
    links::end_open(&changing, account).await?;
    for sql in [
        "DELETE FROM device_link WHERE device = $1",
        // Whoever takes or uploads prekeys has these rows locked: after this nobody does.
        "DELETE FROM prekey_state WHERE device = $1",
        "DELETE FROM prekey_once WHERE device = $1",
        "DELETE FROM prekey_fixed WHERE device = $1",
        "DELETE FROM push WHERE device = $1",
    ] {
        changing.execute(&changing.prepare_cached(sql).await?, &[&row]).await?;
    }
    keys::forget_answers(&changing, account).await?;
    remove_mailbox(&changing, account, row).await?;
    let delete = changing.prepare_cached("DELETE FROM device WHERE id = $1").await?;
    changing.execute(&delete, &[&row]).await?;
    changing.commit().await?;
    Ok(Some(MailboxId(row)))
}

/// All that is in it goes, and the mailbox. A submission that waits for its lock finds neither it nor the device.
async fn remove_mailbox(db: &Transaction<'_>, account: i64, row: i64) -> Result<(), StoreError> {
    lock_mailboxes(db, account).await?;
    count_generation(db, account).await?;
    let sql = "WITH gone AS (DELETE FROM envelope WHERE mailbox = $1 RETURNING payload) \
               SELECT payload, count(*) FROM gone WHERE payload IS NOT NULL GROUP BY payload";
    let rows = db.query(&db.prepare_cached(sql).await?, &[&row]).await?;
    let payloads = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    let payloads: Result<BTreeMap<i64, i64>, StoreError> = payloads.collect();
    release_payloads(db, payloads?).await?;
    let delete = db.prepare_cached("DELETE FROM mailbox WHERE device = $1").await?;
    db.execute(&delete, &[&row]).await?;
    Ok(())
}
