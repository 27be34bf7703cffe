//! What goes out of mailboxes: acknowledged envelopes, those that make room, and old submission keys.

use std::collections::BTreeMap;

use deadpool_postgres::{GenericClient, Object};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::storage::{MailboxId, Quota, StoreError};

/// Submissions that are forgotten at once.
const SLICE: i64 = 500;

/// Of these envelopes ($2 and $3), in these mailboxes ($1), those that end with nothing shared, or all if $4: how many ended
/// with which payload.
const DELETE: &str = "WITH locked AS (SELECT 1 FROM mailbox WHERE device = ANY($1) ORDER BY device FOR UPDATE), \
    gone AS (DELETE FROM envelope e USING unnest($2::bigint[], $3::bigint[]) t (mailbox, seq) \
    WHERE (SELECT count(*) FROM locked) > 0 AND e.mailbox = t.mailbox AND e.seq = t.seq AND ($4 OR e.payload IS NULL) \
    RETURNING e.mailbox, e.size, e.payload), \
    freed AS (UPDATE mailbox m SET count = m.count - g.n, bytes = m.bytes - g.size FROM \
    (SELECT mailbox, count(*) AS n, sum(size)::bigint AS size FROM gone GROUP BY mailbox) g WHERE m.device = g.mailbox) \
    SELECT payload, count(*) FROM gone GROUP BY payload";

/// Drops the oldest until the mailbox, which is locked, keeps its quota. It goes by what is there: the counts may stand
/// for envelopes, too, that have expired and are being taken away.
pub(super) async fn make_room(
    db: &impl GenericClient,
    mailbox: MailboxId,
    quota: Quota,
) -> Result<u64, StoreError> {
    let sql = "DELETE FROM envelope e USING (SELECT seq, sum(1) OVER newer AS place, sum(size) OVER newer AS upto \
               FROM envelope WHERE mailbox = $1 WINDOW newer AS (ORDER BY seq DESC)) old \
               WHERE e.mailbox = $1 AND e.seq = old.seq AND (old.place > $2::bigint OR old.upto > $3::bigint) \
               RETURNING e.size, e.payload";
    let delete = db.prepare_cached(sql).await?;
    let gone = db.query(&delete, &[&mailbox.0, &quota.messages, &quota.bytes]).await?;
    let (mut size, mut payloads) = (0_i64, BTreeMap::new());
    for row in &gone {
        size = size.saturating_add(row.try_get(0)?);
        if let Some(payload) = row.try_get(1)? {
            *payloads.entry(payload).or_default() += 1;
        }
    }
    let count = i64::try_from(gone.len()).unwrap_or(i64::MAX);
    let sql = "UPDATE mailbox SET count = count - $2, bytes = bytes - $3, dropped = dropped + $2 WHERE device = $1";
    db.execute(&db.prepare_cached(sql).await?, &[&mailbox.0, &count, &size]).await?;
    release_payloads(db, payloads).await?;
    Ok(count.unsigned_abs())
}

/// So many envelopes of each payload are gone; it goes with the last of them.
pub(super) async fn release_payloads(
    db: &impl GenericClient,
    payloads: BTreeMap<i64, i64>,
) -> Result<(), StoreError> {
    if payloads.is_empty() {
        return Ok(());
    }
    let (payloads, counts): (Vec<i64>, Vec<i64>) = payloads.into_iter().unzip();
    let sql = "UPDATE payload p SET refs = p.refs - t.n FROM (SELECT l.id, t.n FROM \
               unnest($1::bigint[], $2::bigint[]) t (id, n) JOIN payload l ON l.id = t.id ORDER BY l.id FOR UPDATE OF l) t \
               WHERE p.id = t.id";
    db.execute(&db.prepare_cached(sql).await?, &[&payloads, &counts]).await?;
    let sql = "DELETE FROM payload WHERE id = ANY($1) AND refs <= 0";
    db.execute(&db.prepare_cached(sql).await?, &[&payloads]).await?;
    Ok(())
}

/// Locks mailboxes in the order of their numbers.
pub(super) async fn lock(db: &impl GenericClient, mailboxes: &[i64]) -> Result<(), StoreError> {
    let sql = "SELECT 1 FROM mailbox WHERE device = ANY($1) ORDER BY device FOR UPDATE";
    db.query(&db.prepare_cached(sql).await?, &[&mailboxes]).await?;
    Ok(())
}

/// Takes acknowledged envelopes away, in the order of their places. The commit does not wait for the disk: what a crash brings back is delivered again.
///
/// All is sent at once: mailboxes that are locked are waited for by whoever stores, so no answer is on its way meanwhile.
pub(super) async fn delete(db: &mut Object, places: &[(MailboxId, i64)]) -> Result<(), StoreError> {
    let pairs = places.iter().map(|(mailbox, seq)| (mailbox.0, *seq));
    let (mailboxes, seqs): (Vec<i64>, Vec<i64>) = pairs.unzip();
    let mut numbers = mailboxes.clone();
    numbers.dedup();
    let delete = db.prepare_cached(DELETE).await?;
    let parameters = |all| -> [&(dyn ToSql + Sync); 4] { [&numbers, &mailboxes, &seqs, all] };
    let (own, all) = (parameters(&false), parameters(&true));
    // Each of them is sent whatever becomes of the one before: what fails is rolled back by the last.
    let (begun, gone, ended) = tokio::join!(
        biased;
        db.batch_execute("BEGIN; SET LOCAL synchronous_commit TO off"),
        db.query_opt(&delete, &own),
        db.batch_execute("COMMIT")
    );
    begun?;
    let gone: i64 = gone?.map_or(Ok(0), |row| row.try_get(1))?;
    ended?;
    if gone.unsigned_abs() == seqs.len() as u64 {
        return Ok(());
    }
    // Some have a part that is shared, or are gone already.
    let changing = db.transaction().await?;
    let ((), rows) = tokio::try_join!(
        changing.batch_execute("SET LOCAL synchronous_commit TO off"),
        changing.query(&delete, &all)
    )?;
    release_payloads(&changing, payloads(&rows)?).await?;
    Ok(changing.commit().await?)
}

/// How many envelopes ended with each payload. Those that ended with none are a row, too.
fn payloads(rows: &[Row]) -> Result<BTreeMap<i64, i64>, StoreError> {
    let payload = |row: &Row| Ok(row.try_get::<_, Option<i64>>(0)?.zip(row.try_get(1)?));
    rows.iter().filter_map(|row| payload(row).transpose()).collect()
}

pub(super) async fn told_dropped(
    db: &Object,
    mailbox: MailboxId,
    count: u64,
) -> Result<(), StoreError> {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let sql = "UPDATE mailbox SET dropped = greatest(0, dropped - $2) WHERE device = $1";
    db.execute(&db.prepare_cached(sql).await?, &[&mailbox.0, &count]).await?;
    Ok(())
}

/// Forgets a slice of the submissions from before this time.
pub(super) async fn forget(db: &Object, before_ms: i64) -> Result<u64, StoreError> {
    let sql = "DELETE FROM submission WHERE key IN (SELECT key FROM submission WHERE at_ms < $1 \
               ORDER BY at_ms LIMIT $2 FOR UPDATE SKIP LOCKED)";
    Ok(db.execute(&db.prepare_cached(sql).await?, &[&before_ms, &SLICE]).await?)
}
