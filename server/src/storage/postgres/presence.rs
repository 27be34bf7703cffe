//! Which node a device is connected to. The latest connection has the mailbox; the row's lock orders it with
//! submissions: one that commits later sees the node, one that committed earlier is in the backlog.

use deadpool_postgres::Object;

use crate::storage::{Claim, MailboxId, MailboxState, NodeId, StoreError};

pub(super) async fn claim(
    db: &mut Object,
    mailbox: MailboxId,
    node: NodeId,
) -> Result<Claim, StoreError> {
    let changing = db.transaction().await?;
    let sql = "SELECT node FROM mailbox WHERE device = $1 FOR UPDATE";
    let before = changing.query_opt(&changing.prepare_cached(sql).await?, &[&mailbox.0]).await?;
    let before: Option<i64> = before.ok_or(StoreError::Damaged)?.try_get(0)?;
    let sql = "UPDATE mailbox SET node = $2, epoch = epoch + 1 WHERE device = $1 RETURNING epoch";
    let update = changing.prepare_cached(sql).await?;
    let epoch = changing.query_one(&update, &[&mailbox.0, &node.0]).await?.try_get(0)?;
    changing.commit().await?;
    let displaced = before.map(NodeId).filter(|before| *before != node);
    Ok(Claim { epoch, displaced })
}

pub(super) async fn release(db: &Object, mailbox: MailboxId, epoch: i64) -> Result<(), StoreError> {
    let sql = "UPDATE mailbox SET node = NULL WHERE device = $1 AND epoch = $2";
    db.execute(&db.prepare_cached(sql).await?, &[&mailbox.0, &epoch]).await?;
    Ok(())
}

pub(super) async fn states(
    db: &Object,
    mailboxes: &[MailboxId],
) -> Result<Vec<MailboxState>, StoreError> {
    let numbers: Vec<i64> = mailboxes.iter().map(|mailbox| mailbox.0).collect();
    let sql = "SELECT device, next_seq - 1, epoch FROM mailbox WHERE device = ANY($1)";
    let rows = db.query(&db.prepare_cached(sql).await?, &[&numbers]).await?;
    let state = |row: &tokio_postgres::Row| {
        let (mailbox, end, epoch) = (MailboxId(row.try_get(0)?), row.try_get(1)?, row.try_get(2)?);
        Ok(MailboxState { mailbox, end, epoch })
    };
    rows.iter().map(state).collect()
}
