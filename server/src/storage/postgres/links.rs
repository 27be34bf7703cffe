//! Links: a token of a device makes a further one, once. Of two who use it at the same time the account's row lets one go first.

use deadpool_postgres::{GenericClient, Object, Transaction};
use tokio_postgres::Row;

use super::accounts::put_device;
use super::devices::lock_account;
use super::keys;
use super::row::{bytes, small};
use crate::storage::device_rows::{FoundLink, NewDevice};
use crate::storage::{LinkAnswer, LinkRow, LinkState, Linking, MailboxId, OpeningLink, StoreError};

/// Links that one purge takes.
const SLICE: i64 = 500;

pub(super) async fn open(db: &mut Object, opening: &OpeningLink) -> Result<bool, StoreError> {
    let Some(account) = account_of(db, opening.by).await? else { return Ok(false) };
    let changing = db.transaction().await?;
    lock_account(&changing, account).await?;
    // It may have gone before the lock was had; with the lock it does not go.
    if account_of(&changing, opening.by).await?.is_none() {
        return Ok(false);
    }
    end_open(&changing, account).await?;
    let sql =
        "INSERT INTO device_link (id, account, token_hash, expires_ms) VALUES ($1, $2, $3, $4)";
    let insert = changing.prepare_cached(sql).await?;
    let (id, token) = (&opening.id[..], &opening.token_hash[..]);
    changing.execute(&insert, &[&id, &account, &token, &opening.expires_ms]).await?;
    changing.commit().await?;
    Ok(true)
}

async fn account_of(db: &impl GenericClient, device: MailboxId) -> Result<Option<i64>, StoreError> {
    let query = db.prepare_cached("SELECT account FROM device WHERE id = $1").await?;
    let row = db.query_opt(&query, &[&device.0]).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// Those of the account that have made no device are worth nothing any more.
pub(super) async fn end_open(db: &Transaction<'_>, account: i64) -> Result<(), StoreError> {
    let sql = "DELETE FROM device_link WHERE account = $1 AND device IS NULL";
    db.execute(&db.prepare_cached(sql).await?, &[&account]).await?;
    Ok(())
}

pub(super) async fn of_token(
    db: &Object,
    token_hash: &[u8; 32],
    now_ms: i64,
) -> Result<Option<LinkRow>, StoreError> {
    let sql = "SELECT a.id, a.identity_key FROM device_link l JOIN account a ON a.id = l.account \
               WHERE l.token_hash = $1 AND l.expires_ms > $2";
    let query = db.prepare_cached(sql).await?;
    let row = db.query_opt(&query, &[&&token_hash[..], &now_ms]).await?;
    let link =
        |row: Row| Ok(LinkRow { account_row: row.try_get(0)?, identity_key: bytes(&row, 1)? });
    row.map(link).transpose()
}

pub(super) async fn state(
    db: &Object,
    id: &[u8; 16],
    now_ms: i64,
) -> Result<Option<LinkState>, StoreError> {
    let sql = "SELECT l.account, d.device FROM device_link l LEFT JOIN device d ON d.id = l.device \
               WHERE l.id = $1 AND l.expires_ms > $2";
    let row = db.query_opt(&db.prepare_cached(sql).await?, &[&&id[..], &now_ms]).await?;
    let state = |row: Row| {
        let device = row.try_get::<_, Option<i16>>(1)?.map(small).transpose()?;
        Ok(LinkState { account_row: row.try_get(0)?, device })
    };
    row.map(state).transpose()
}

pub(super) async fn link(db: &mut Object, new: &Linking) -> Result<LinkAnswer, StoreError> {
    let Some(row) = of_token(db, &new.link, new.now_ms).await? else {
        return Ok(LinkAnswer::NoLink);
    };
    let changing = db.transaction().await?;
    let account = lock_account(&changing, row.account_row).await?;
    // Another may have used it before the lock was had, and it may have gone.
    let sql = "SELECT device, registration FROM device_link WHERE token_hash = $1";
    let query = changing.prepare_cached(sql).await?;
    let Some(link) = changing.query_opt(&query, &[&&new.link[..]]).await? else {
        return Ok(LinkAnswer::NoLink);
    };
    let made: Option<i64> = link.try_get(0)?;
    let made = made.map(|row| Ok::<_, StoreError>((row, bytes(&link, 1)?))).transpose()?;
    let found = FoundLink { account, account_row: row.account_row, made };
    let answer = match found.made {
        Some((row, registration)) if registration == new.registration => {
            renew(&changing, &found, row, new).await?
        }
        Some(_) => LinkAnswer::NoLink,
        None => make(&changing, &found, new).await?,
    };
    changing.commit().await?;
    Ok(answer)
}

async fn renew(
    db: &Transaction<'_>,
    found: &FoundLink,
    row: i64,
    new: &Linking,
) -> Result<LinkAnswer, StoreError> {
    let sql = "UPDATE device SET token_hash = $2 WHERE id = $1 RETURNING device";
    let update = db.prepare_cached(sql).await?;
    let device = db.query_one(&update, &[&row, &&new.token_hash[..]]).await?;
    // Connections of before are older than this, those of the new token newer.
    let sql = "UPDATE mailbox SET epoch = epoch + 1 WHERE device = $1 RETURNING epoch";
    let epoch = db.query_one(&db.prepare_cached(sql).await?, &[&row]).await?.try_get(0)?;
    let device = small(device.try_get::<_, i16>(0)?)?;
    Ok(LinkAnswer::Renewed(found.linked(device, MailboxId(row)), epoch))
}

async fn make(
    db: &Transaction<'_>,
    found: &FoundLink,
    new: &Linking,
) -> Result<LinkAnswer, StoreError> {
    let account = found.account_row;
    let query = db.prepare_cached("SELECT device FROM device WHERE account = $1").await?;
    let taken = db.query(&query, &[&account]).await?;
    let taken = taken.iter().map(|row| small(row.try_get::<_, i16>(0)?));
    let taken = taken.collect::<Result<Vec<u8>, StoreError>>()?;
    let Some(device) = new.number(&taken) else { return Ok(LinkAnswer::Full) };
    let (mailbox, _) = put_device(db, &NewDevice::linked(account, device, new)).await?;
    keys::replace_all(db, mailbox, &new.keys).await?;
    keys::forget_answers(db, account).await?;
    let sql = "UPDATE device_link SET device = $2, registration = $3 WHERE token_hash = $1";
    let update = db.prepare_cached(sql).await?;
    db.execute(&update, &[&&new.link[..], &mailbox.0, &&new.registration[..]]).await?;
    Ok(LinkAnswer::Made(found.linked(device, mailbox)))
}

pub(super) async fn purge(db: &Object, now_ms: i64) -> Result<u64, StoreError> {
    let sql = "DELETE FROM device_link WHERE id = ANY(ARRAY(SELECT id FROM device_link WHERE expires_ms <= $1 \
               ORDER BY expires_ms LIMIT $2 FOR UPDATE SKIP LOCKED))";
    Ok(db.execute(&db.prepare_cached(sql).await?, &[&now_ms, &SLICE]).await?)
}
