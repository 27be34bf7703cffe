//! Where devices are woken.

use bytes::Bytes;
use deadpool_postgres::Object;
use tokio_postgres::error::SqlState;

use crate::storage::{MailboxId, NodeId, PushRow, StoreError};

pub(super) async fn put(
    db: &Object,
    mailbox: MailboxId,
    registration: Option<&Bytes>,
) -> Result<(), StoreError> {
    let Some(registration) = registration else {
        let delete = db.prepare_cached("DELETE FROM push WHERE device = $1").await?;
        db.execute(&delete, &[&mailbox.0]).await?;
        return Ok(());
    };
    let sql = "INSERT INTO push (device, registration) VALUES ($1, $2) \
               ON CONFLICT (device) DO UPDATE SET registration = $2";
    let put = db.execute(&db.prepare_cached(sql).await?, &[&mailbox.0, &&registration[..]]).await;
    match put {
        // The device is gone.
        Err(error) if error.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION) => Ok(()),
        done => Ok(done.map(drop)?),
    }
}

pub(super) async fn end(
    db: &Object,
    mailbox: MailboxId,
    registration: &Bytes,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM push WHERE device = $1 AND registration = $2";
    db.execute(&db.prepare_cached(sql).await?, &[&mailbox.0, &&registration[..]]).await?;
    Ok(())
}

pub(super) async fn due(
    db: &Object,
    mailboxes: &[MailboxId],
    now_ms: i64,
) -> Result<Vec<PushRow>, StoreError> {
    let numbers: Vec<i64> = mailboxes.iter().map(|mailbox| mailbox.0).collect();
    let sql = "SELECT p.device, p.registration, (SELECT received_ms FROM envelope WHERE mailbox = p.device AND expires_ms > $2 \
               ORDER BY seq LIMIT 1), m.node FROM push p JOIN mailbox m ON m.device = p.device WHERE p.device = ANY($1)";
    let rows = db.query(&db.prepare_cached(sql).await?, &[&numbers, &now_ms]).await?;
    let row = |row: &tokio_postgres::Row| {
        let registration: Vec<u8> = row.try_get(1)?;
        let mailbox = MailboxId(row.try_get(0)?);
        let (oldest_ms, node) = (row.try_get(2)?, row.try_get::<_, Option<i64>>(3)?);
        Ok(PushRow {
            mailbox,
            registration: registration.into(),
            oldest_ms,
            node: node.map(NodeId),
        })
    };
    rows.iter().map(row).collect()
}
