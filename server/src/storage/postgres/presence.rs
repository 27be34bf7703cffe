//! Which node a device is connected to. The latest connection has the mailbox; the row's lock orders it with
//! submissions: one that commits later sees the node, one that committed earlier is in the backlog.

use std::collections::HashMap;

use deadpool_postgres::Object;

use super::recipients::{Accounts, Plan};
use crate::storage::{
    AppendAnswer, Claim, Located, Location, MailboxId, MailboxState, NodeId, Recipient, StoreError,
};

/// Attempts with accounts that have just changed.
const ATTEMPTS: usize = 3;

pub(super) async fn claim(
    db: &mut Object,
    mailbox: MailboxId,
    node: NodeId,
) -> Result<Option<Claim>, StoreError> {
    let changing = db.transaction().await?;
    let sql = "SELECT node FROM mailbox WHERE device = $1 FOR UPDATE";
    let before = changing.query_opt(&changing.prepare_cached(sql).await?, &[&mailbox.0]).await?;
    let Some(before) = before else { return Ok(None) };
    let before: Option<i64> = before.try_get(0)?;
    let sql = "UPDATE mailbox SET node = $2, epoch = epoch + 1 WHERE device = $1 RETURNING epoch";
    let update = changing.prepare_cached(sql).await?;
    let epoch = changing.query_one(&update, &[&mailbox.0, &node.0]).await?.try_get(0)?;
    changing.commit().await?;
    let displaced = before.map(NodeId).filter(|before| *before != node);
    Ok(Some(Claim { epoch, displaced }))
}

pub(super) async fn release(db: &Object, mailbox: MailboxId, epoch: i64) -> Result<(), StoreError> {
    let sql = "UPDATE mailbox SET node = NULL WHERE device = $1 AND epoch = $2";
    db.execute(&db.prepare_cached(sql).await?, &[&mailbox.0, &epoch]).await?;
    Ok(())
}

/// Where the devices of the recipients are connected.
pub(super) async fn locate(
    db: &Object,
    accounts: &Accounts,
    recipients: &[Recipient],
) -> Result<Vec<Located>, StoreError> {
    let all: Vec<&Recipient> = recipients.iter().collect();
    for _ in 0..ATTEMPTS {
        let plans = accounts.plans(db, &all).await?;
        let nodes = nodes(db, &plans).await?;
        let located = plans.into_iter().map(|plan| at(plan, &nodes)).collect::<Option<_>>();
        if let Some(located) = located {
            return Ok(located);
        }
        accounts.forget(recipients);
    }
    Ok(recipients.iter().map(|_| Err(AppendAnswer::Unauthorised)).collect())
}

/// The generation of each mailbox, and its node.
type Nodes = HashMap<MailboxId, (i64, Option<NodeId>)>;

async fn nodes(db: &Object, plans: &[Plan]) -> Result<Nodes, StoreError> {
    let targets = plans.iter().flatten().flatten();
    let mailboxes: Vec<i64> = targets.map(|target| target.mailbox.0).collect();
    let sql = "SELECT device, generation, node FROM mailbox WHERE device = ANY($1)";
    let rows = db.query(&db.prepare_cached(sql).await?, &[&mailboxes]).await?;
    let node = |row: &tokio_postgres::Row| {
        let node: Option<i64> = row.try_get(2)?;
        Ok((MailboxId(row.try_get(0)?), (row.try_get(1)?, node.map(NodeId))))
    };
    rows.iter().map(node).collect()
}

/// None if what was remembered of the account is out of date.
fn at(plan: Plan, nodes: &Nodes) -> Option<Located> {
    let targets = match plan {
        Ok(targets) => targets,
        Err(refusal) => return Some(Err(refusal)),
    };
    let locations = targets.into_iter().map(|target| {
        let (generation, node) = *nodes.get(&target.mailbox)?;
        (generation == target.generation).then_some(Location { mailbox: target.mailbox, node })
    });
    locations.collect::<Option<_>>().map(Ok)
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
