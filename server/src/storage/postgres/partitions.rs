//! Envelopes lie in partitions by the time at which they expire: what nobody fetched goes with its partition, at once and
//! without a trace in indexes and free space. A partition is a quarter of an envelope's life, from an hour to a week, and so
//! much longer may an envelope stay. `envelope_part` lists them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deadpool_postgres::{Object, Transaction};
use tokio_postgres::error::SqlState;

use super::connections::{Connections, repeat};
use super::mailbox::release_payloads;
use crate::storage::{Append, StoreError};

/// "envelope" as a number: the advisory lock under which one node at a time makes a partition.
const LOCK: i64 = 0x656e_7665_6c6f_7065;
const HOUR_MS: i64 = 60 * 60 * 1000;
const WEEK_MS: i64 = 7 * 24 * HOUR_MS;
/// Envelopes whose mailboxes' counts are put right in one transaction, and the rest of the last of these.
const SLICE: i64 = 2000;
/// Writers and readers wait while somebody waits for the lock of the whole table: not longer than this.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout TO '200ms'";

/// The partitions that this node knows of, by their ends: first and first after.
#[derive(Clone, Default)]
pub(super) struct Partitions(Arc<Mutex<BTreeMap<i64, i64>>>);

impl Partitions {
    /// Makes the partitions that the envelopes of a batch go to, if there are none yet.
    pub(super) async fn cover(&self, db: &Connections, batch: &[Append]) -> Result<(), StoreError> {
        while let Some(new) = self.uncovered(batch) {
            let width = new.expires_ms.saturating_sub(new.now_ms) / 4;
            let make = async |db: &mut _| make(db, new.expires_ms, width).await;
            let found = db.run(make).await?;
            *self.lock() = found;
        }
        Ok(())
    }

    /// Another node has taken one away.
    pub(super) fn forget(&self) {
        self.lock().clear();
    }

    fn uncovered<'a>(&self, batch: &'a [Append]) -> Option<&'a Append> {
        let known = self.lock();
        let covers =
            |time: i64| known.range(..=time).next_back().is_some_and(|(_, end)| time < *end);
        batch.iter().find(|new| !covers(new.expires_ms))
    }

    /// The map is whole between statements, so a poisoned lock does no harm.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<i64, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an envelope found no partition.
pub(super) fn is_missing(error: &StoreError) -> bool {
    let StoreError::Postgres(error) = error else { return false };
    error.code() == Some(&SqlState::CHECK_VIOLATION)
}

/// The partitions, with one for this time. It is made beside the table and attached, which stops nobody.
async fn make(db: &mut Object, time: i64, width: i64) -> Result<BTreeMap<i64, i64>, StoreError> {
    let changing = db.transaction().await?;
    changing.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    let sql = "SELECT from_ms, to_ms FROM envelope_part WHERE cleared_to IS NULL";
    let rows = changing.query(sql, &[]).await?;
    let found = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    let mut found = found.collect::<Result<BTreeMap<i64, i64>, StoreError>>()?;
    let before = found.range(..=time).next_back().map(|(_, end)| *end);
    if before.is_some_and(|end| time < end) {
        return Ok(found);
    }
    let (from, to) = range(&found, time, width);
    let sql = "INSERT INTO envelope_part (from_ms, to_ms) VALUES ($1, $2) RETURNING id";
    let id: i64 = changing.query_one(sql, &[&from, &to]).await?.try_get(0)?;
    let sql = format!(
        "CREATE TABLE envelope_{id} (LIKE envelope INCLUDING ALL);
         ALTER TABLE envelope ATTACH PARTITION envelope_{id} FOR VALUES FROM ({from}) TO ({to})"
    );
    changing.batch_execute(&sql).await?;
    changing.commit().await?;
    found.insert(from, to);
    Ok(found)
}

/// A range of about this width with the time in it, between those that are there.
fn range(found: &BTreeMap<i64, i64>, time: i64, width: i64) -> (i64, i64) {
    let width = width.clamp(HOUR_MS, WEEK_MS);
    let from = time.div_euclid(width).saturating_mul(width);
    let before = found.range(..=time).next_back().map_or(i64::MIN, |(_, end)| *end);
    let after = found.range(time..).next().map_or(i64::MAX, |(from, _)| *from);
    (from.max(before), from.saturating_add(width).min(after))
}

/// Takes away what has expired: a partition is detached as a whole, then the counts of its mailboxes are put right, a slice
/// at a time, then it is dropped. Gives how many envelopes went.
///
/// One that cannot be cleared does not keep the others: they all have their turn, and the first error is told after that.
pub(super) async fn expire(db: &Connections, now_ms: i64) -> Result<u64, StoreError> {
    let (mut passed, mut failed) = (Vec::new(), None);
    loop {
        let Some(id) = db.run(async |db| detached(db, &passed).await).await? else {
            match repeat(|| db.run(async |db| detach(db, now_ms).await)).await {
                Ok(Detached::One) => continue,
                Ok(Detached::None) => break,
                Err(error) => return Err(failed.unwrap_or(error)),
            }
        };
        match repeat(|| db.run(async |db| clear(db, id).await)).await {
            Ok(Cleared::Slice(count @ 1..)) if failed.is_none() => return Ok(count),
            Ok(Cleared::Slice(_)) => {}
            Ok(Cleared::ByAnother) => passed.push(id),
            Err(error) => {
                passed.push(id);
                failed = failed.or(Some(error));
            }
        }
    }
    failed.map_or(Ok(0), Err)
}

/// The first partition that waits to be cleared, but for these.
async fn detached(db: &Object, but: &[i64]) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT id FROM envelope_part WHERE cleared_to IS NOT NULL AND id <> ALL($1) ORDER BY id LIMIT 1";
    let row = db.query_opt(&db.prepare_cached(sql).await?, &[&but]).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

enum Detached {
    One,
    /// None has expired, or somebody uses all of them.
    None,
}

/// From now on nobody sees it.
async fn detach(db: &mut Object, now_ms: i64) -> Result<Detached, StoreError> {
    let changing = db.transaction().await?;
    changing.batch_execute(LOCK_TIMEOUT).await?;
    let sql = "SELECT id FROM envelope_part WHERE to_ms <= $1 AND cleared_to IS NULL ORDER BY to_ms LIMIT 1 \
               FOR UPDATE SKIP LOCKED";
    let Some(row) = changing.query_opt(sql, &[&now_ms]).await? else { return Ok(Detached::None) };
    let id: i64 = row.try_get(0)?;
    let sql = format!("ALTER TABLE envelope DETACH PARTITION envelope_{id}");
    match changing.batch_execute(&sql).await {
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            tracing::info!("somebody reads all envelopes for long; expired ones go later");
            return Ok(Detached::None);
        }
        done => done?,
    }
    changing.execute("UPDATE envelope_part SET cleared_to = 0 WHERE id = $1", &[&id]).await?;
    changing.commit().await?;
    Ok(Detached::One)
}

enum Cleared {
    /// So many envelopes.
    Slice(u64),
    /// Another node is about it, or has done it.
    ByAnother,
}

/// Puts the counts of some mailboxes right; their devices will be told. The partition is dropped after the last of them. It may
/// have envelopes of devices that were removed since: these count, and have no mailbox.
async fn clear(db: &mut Object, id: i64) -> Result<Cleared, StoreError> {
    let changing = db.transaction().await?;
    let sql = "SELECT cleared_to FROM envelope_part WHERE id = $1 AND cleared_to IS NOT NULL FOR UPDATE SKIP LOCKED";
    let Some(row) = changing.query_opt(sql, &[&id]).await? else { return Ok(Cleared::ByAnother) };
    let cleared_to: i64 = row.try_get(0)?;
    let sql = format!(
        "SELECT max(mailbox), count(*) FROM (SELECT mailbox FROM envelope_{id} WHERE mailbox > $1 ORDER BY mailbox LIMIT $2) next"
    );
    let next = changing.query_one(&sql, &[&cleared_to, &SLICE]).await?;
    let last = next.try_get::<_, Option<i64>>(0)?.unwrap_or(cleared_to);
    let sql = format!(
        "WITH gone AS (SELECT mailbox, count(*) AS n, count(*) FILTER (WHERE NOT short) AS missed, sum(size)::bigint AS size \
         FROM envelope_{id} WHERE mailbox > $1 AND mailbox <= $2 GROUP BY mailbox), \
         locked AS (SELECT device FROM mailbox WHERE device IN (SELECT mailbox FROM gone) ORDER BY device FOR UPDATE), \
         put AS (UPDATE mailbox m SET count = m.count - g.n, bytes = m.bytes - g.size, dropped = m.dropped + g.missed \
         FROM gone g JOIN locked l ON l.device = g.mailbox WHERE m.device = l.device) \
         SELECT coalesce(sum(n), 0)::bigint FROM gone"
    );
    let count: i64 = changing.query_one(&sql, &[&cleared_to, &last]).await?.try_get(0)?;
    release(&changing, id, (cleared_to, last)).await?;
    if next.try_get::<_, i64>(1)? < SLICE {
        changing.batch_execute(&format!("DROP TABLE envelope_{id}")).await?;
        changing.execute("DELETE FROM envelope_part WHERE id = $1", &[&id]).await?;
    } else {
        let sql = "UPDATE envelope_part SET cleared_to = $2 WHERE id = $1";
        changing.execute(sql, &[&id, &last]).await?;
    }
    changing.commit().await?;
    Ok(Cleared::Slice(count.unsigned_abs()))
}

/// The payloads of these mailboxes' envelopes.
async fn release(db: &Transaction<'_>, id: i64, (after, to): (i64, i64)) -> Result<(), StoreError> {
    let sql = format!(
        "SELECT payload, count(*) FROM envelope_{id} WHERE mailbox > $1 AND mailbox <= $2 AND payload IS NOT NULL \
         GROUP BY payload"
    );
    let rows = db.query(&sql, &[&after, &to]).await?;
    let payloads = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    release_payloads(db, payloads.collect::<Result<_, StoreError>>()?).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_as_wide_as_a_quarter_of_a_life_and_never_overlap() {
        let none = BTreeMap::new();
        assert_eq!(range(&none, 5 * WEEK_MS + 7, WEEK_MS * 2), (5 * WEEK_MS, 6 * WEEK_MS));
        assert_eq!(range(&none, HOUR_MS / 2, 5), (0, HOUR_MS));
        assert_eq!(range(&none, 11 * HOUR_MS, 5 * HOUR_MS), (10 * HOUR_MS, 15 * HOUR_MS));
        let some = BTreeMap::from([(0, 12 * HOUR_MS), (14 * HOUR_MS, 20 * HOUR_MS)]);
        assert_eq!(range(&some, 13 * HOUR_MS, WEEK_MS), (12 * HOUR_MS, 14 * HOUR_MS));
        assert_eq!(range(&some, 20 * HOUR_MS, 3 * HOUR_MS), (20 * HOUR_MS, 21 * HOUR_MS));
    }
}
