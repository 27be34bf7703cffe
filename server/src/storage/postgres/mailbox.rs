//! What goes out of mailboxes: acknowledged envelopes, those that make room, and old submission keys.

use std::collections::BTreeMap;

use deadpool_postgres::{GenericClient, Object};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::storage::{MailboxId, Quota, StoreError};

/// Submissions that are forgotten at once.
const SLICE: i64 = 500;
/// Envelopes that make room in one transaction. There are more where the quota was lowered, and the next ones go on with these.
const ROOM_SLICE: u64 = 5000;

/// Of these envelopes ($2 and $3), in these mailboxes ($1), those that end with nothing shared, or all if $4: how many ended
/// with which payload.
///
/// They are found first, one after the other, and then deleted where they lie: that is the only way to do it, also for a plan that
/// was made while the table was empty.
const DELETE: &str = "WITH locked AS (SELECT 1 FROM mailbox WHERE device = ANY($1) ORDER BY device FOR UPDATE), \
    found AS MATERIALIZED (SELECT e.part, e.at FROM unnest($2::bigint[], $3::bigint[]) t (mailbox, seq) CROSS JOIN LATERAL \
    (SELECT tableoid AS part, ctid AS at FROM envelope WHERE mailbox = t.mailbox AND seq = t.seq AND ($4 OR payload IS NULL) \
    OFFSET 0) e WHERE (SELECT count(*) FROM locked) > 0), \
    gone AS (DELETE FROM envelope e USING found WHERE e.ctid = found.at AND e.tableoid = found.part \
    RETURNING e.mailbox, e.size, e.payload), \
    freed AS (UPDATE mailbox m SET count = m.count - g.n, bytes = m.bytes - g.size FROM \
    (SELECT mailbox, count(*) AS n, sum(size)::bigint AS size FROM gone GROUP BY mailbox) g WHERE m.device = g.mailbox) \
    SELECT payload, count(*) FROM gone GROUP BY payload";

/// Of mailboxes ($1), which are locked, with their quotas ($2 envelopes, $3 bytes): the oldest of those that are over them go.
/// Gives by how much a mailbox was over, and how many envelopes of how many bytes went, for each payload that they ended with.
///
/// As many are looked at as the counts say, and a hundred at most: none is smaller than a KiB, or else not enough go at once.
/// The counts may stand for envelopes, too, that have expired and are being taken away (`partitions`). As long as these are not
/// taken off, it goes by what is there.
const ROOM: &str = "WITH over AS (
    SELECT q.device, m.count - q.messages AS messages, m.bytes - q.bytes AS bytes, q.messages AS most, q.bytes AS most_bytes,
           EXISTS (SELECT FROM envelope_part WHERE cleared_to < q.device) AS clearing
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) q (device, messages, bytes)
    CROSS JOIN LATERAL (SELECT count, bytes FROM mailbox WHERE device = q.device OFFSET 0) m
    WHERE m.count > q.messages OR m.bytes > q.bytes
), old AS MATERIALIZED (
    SELECT e.part, e.at FROM over o CROSS JOIN LATERAL (
        SELECT part, at, row_number() OVER w AS place, sum(size) OVER w - size AS before
        FROM (SELECT tableoid AS part, ctid AS at, seq, size FROM envelope WHERE mailbox = o.device ORDER BY seq
              LIMIT least(greatest(o.messages, o.bytes / 1024 + 1), 100)) first
        WINDOW w AS (ORDER BY seq)) e
    WHERE NOT o.clearing AND (e.place <= o.messages OR e.before < o.bytes)
    UNION ALL
    SELECT e.part, e.at FROM over o CROSS JOIN LATERAL (
        SELECT tableoid AS part, ctid AS at, row_number() OVER w AS place, sum(size) OVER w AS upto
        FROM envelope WHERE mailbox = o.device WINDOW w AS (ORDER BY seq DESC)) e
    WHERE o.clearing AND (e.place > o.most OR e.upto > o.most_bytes)
), gone AS (
    DELETE FROM envelope e USING old WHERE e.ctid = old.at AND e.tableoid = old.part RETURNING e.mailbox, e.size, e.payload
), freed AS (
    UPDATE mailbox m SET count = m.count - g.n, bytes = m.bytes - g.bytes, dropped = m.dropped + g.n
    FROM (SELECT mailbox, count(*) AS n, sum(size)::bigint AS bytes FROM gone GROUP BY mailbox) g WHERE m.device = g.mailbox
)
SELECT o.device, CASE WHEN NOT o.clearing THEN o.messages END, CASE WHEN NOT o.clearing THEN o.bytes END, g.payload, g.n, g.bytes
FROM over o JOIN (SELECT mailbox, payload, count(*) AS n, sum(size)::bigint AS bytes FROM gone GROUP BY mailbox, payload) g
ON g.mailbox = o.device";

/// Drops the oldest of each mailbox until it keeps its quota, or a great many have gone. Gives how many each has lost. The commit does not wait for the disk:
/// what a crash brings back is dropped with the next one.
pub(super) async fn make_room(
    db: &mut Object,
    quotas: &[(MailboxId, Quota)],
) -> Result<BTreeMap<MailboxId, u64>, StoreError> {
    let changing = db.transaction().await?;
    changing.batch_execute("SET LOCAL synchronous_commit TO off").await?;
    let mailboxes: Vec<i64> = quotas.iter().map(|(mailbox, _)| mailbox.0).collect();
    lock(&changing, &mailboxes).await?;
    let (mut dropped, mut payloads) = (BTreeMap::<_, u64>::new(), BTreeMap::new());
    let mut over = quotas.to_vec();
    while !over.is_empty() && dropped.values().sum::<u64>() < ROOM_SLICE {
        let left = drop_oldest(&changing, &over, &mut dropped, &mut payloads).await?;
        over.retain(|(mailbox, _)| {
            left.get(mailbox).is_some_and(|(messages, bytes)| *messages > 0 || *bytes > 0)
        });
    }
    release_payloads(&changing, payloads).await?;
    changing.commit().await?;
    Ok(dropped)
}

/// By how much mailboxes are still over their quotas that have just lost something.
type Left = BTreeMap<MailboxId, (i64, i64)>;

async fn drop_oldest(
    db: &impl GenericClient,
    over: &[(MailboxId, Quota)],
    dropped: &mut BTreeMap<MailboxId, u64>,
    payloads: &mut BTreeMap<i64, i64>,
) -> Result<Left, StoreError> {
    let column = |of: fn(&(MailboxId, Quota)) -> i64| over.iter().map(of).collect::<Vec<i64>>();
    let (mailboxes, messages) = (column(|(mailbox, _)| mailbox.0), column(|(_, it)| it.messages));
    let bytes = column(|(_, it)| it.bytes);
    let rows = db.query(&db.prepare_cached(ROOM).await?, &[&mailboxes, &messages, &bytes]).await?;
    let mut left = Left::new();
    for row in &rows {
        let mailbox = MailboxId(row.try_get(0)?);
        let was: Option<(i64, i64)> = row.try_get::<_, Option<i64>>(1)?.zip(row.try_get(2)?);
        let (count, bytes): (i64, i64) = (row.try_get(4)?, row.try_get(5)?);
        let left = left.entry(mailbox).or_insert(was.unwrap_or_default());
        *left = (left.0.saturating_sub(count), left.1.saturating_sub(bytes));
        *dropped.entry(mailbox).or_default() += count.unsigned_abs();
        if let Some(payload) = row.try_get(3)? {
            *payloads.entry(payload).or_default() += count;
        }
    }
    Ok(left)
}

/// So many envelopes of each payload are gone; it goes with the last of them. They are locked in the order of their hashes, as
/// where they are stored.
pub(super) async fn release_payloads(
    db: &impl GenericClient,
    payloads: BTreeMap<i64, i64>,
) -> Result<(), StoreError> {
    if payloads.is_empty() {
        return Ok(());
    }
    let all: Vec<i64> = payloads.keys().copied().collect();
    let sql = "SELECT FROM payload WHERE id = ANY($1) ORDER BY hash FOR UPDATE";
    db.query(&db.prepare_cached(sql).await?, &[&all]).await?;
    let mut by_count: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for (payload, count) in payloads {
        by_count.entry(count).or_default().push(payload);
    }
    let sql = "UPDATE payload SET refs = refs - $2 WHERE id = ANY($1)";
    let update = db.prepare_cached(sql).await?;
    for (count, payloads) in by_count {
        db.execute(&update, &[&payloads, &count]).await?;
    }
    let sql = "DELETE FROM payload WHERE id = ANY($1) AND refs <= 0";
    db.execute(&db.prepare_cached(sql).await?, &[&all]).await?;
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
    let sql = "DELETE FROM submission WHERE key = ANY(ARRAY(SELECT key FROM submission WHERE at_ms < $1 \
               ORDER BY at_ms LIMIT $2 FOR UPDATE SKIP LOCKED))";
    Ok(db.execute(&db.prepare_cached(sql).await?, &[&before_ms, &SLICE]).await?)
}
