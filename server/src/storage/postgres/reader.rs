//! Mailboxes are read together: one task takes the readings that are waiting into one statement. A notice from another
//! node wakes many devices at once.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use deadpool_postgres::Object;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::Row;

use super::connections::Connections;
use super::row::blob;
use crate::storage::{Backlog, MailboxId, ReadLimit, StoreError, StoredEnvelope};

/// Readings in one statement.
const BATCH: usize = 64;
/// Bytes of bodies that one statement may give, unless a single reading may give more.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Readings that may wait.
const QUEUE: usize = 4096;

/// After several readings that went together, and after many: more of them come as quickly, and go together better.
const PAUSE: Duration = Duration::from_millis(1);
const LONGER_PAUSE: Duration = Duration::from_millis(3);
const MANY: usize = 8;

/// One statement, one picture: a mailbox's end and its envelopes belong together. Of a mailbox that does not fit as a whole it
/// tells that alone.
const READ: &str = "SELECT m.next_seq - 1, m.dropped, e.seq, e.received_ms, e.body,
    CASE WHEN e.payload IS NOT NULL THEN (SELECT body FROM payload WHERE id = e.payload) END, NULL::bigint, r.place, m.bytes <= r.bytes
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) WITH ORDINALITY r (mailbox, after, messages, bytes, place)
JOIN mailbox m ON m.device = r.mailbox
LEFT JOIN LATERAL (SELECT seq, received_ms, payload, body FROM envelope
    WHERE mailbox = m.device AND seq > r.after AND expires_ms > $5 AND m.bytes <= r.bytes ORDER BY seq LIMIT r.messages) e ON true";

/// The same of one that does not: envelopes up to a number and a size, the first one whatever its size, and how many were
/// looked at.
const READ_PART: &str = "SELECT m.next_seq - 1, m.dropped, e.seq, e.received_ms, e.body,
    CASE WHEN e.payload IS NOT NULL THEN (SELECT body FROM payload WHERE id = e.payload) END, e.found
FROM mailbox m LEFT JOIN LATERAL (
    SELECT seq, received_ms, payload, body, found
    FROM (SELECT i.*, row_number() OVER w AS place, sum(i.size) OVER w AS upto, count(*) OVER () AS found
          FROM (SELECT seq, received_ms, size, payload, body FROM envelope
                WHERE mailbox = m.device AND seq > $2 AND expires_ms > $5 ORDER BY seq LIMIT $3) i
          WINDOW w AS (ORDER BY i.seq)) n
    WHERE n.place = 1 OR (n.place < $3 AND n.upto <= $4::bigint)) e ON true
WHERE m.device = $1";

struct Reading {
    mailbox: MailboxId,
    cursor: i64,
    limit: ReadLimit,
    now_ms: i64,
    answer: oneshot::Sender<Result<Backlog, StoreError>>,
}

/// The queue before the reading task.
pub(super) struct Reader {
    /// None once the store is closed.
    queue: Mutex<Option<mpsc::Sender<Reading>>>,
}

impl Reader {
    pub(super) fn start(db: &Connections) -> Self {
        let (queue, readings) = mpsc::channel(QUEUE);
        tokio::spawn(run(db.clone(), readings));
        Self { queue: Mutex::new(Some(queue)) }
    }

    pub(super) async fn read(
        &self,
        mailbox: MailboxId,
        cursor: i64,
        limit: ReadLimit,
        now_ms: i64,
    ) -> Result<Backlog, StoreError> {
        let (answer, answered) = oneshot::channel();
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let queue = queue.ok_or(StoreError::Stopping)?;
        queue.try_send(Reading { mailbox, cursor, limit, now_ms, answer }).map_err(|error| {
            match error {
                mpsc::error::TrySendError::Full(_) => StoreError::Busy,
                mpsc::error::TrySendError::Closed(_) => StoreError::Stopping,
            }
        })?;
        drop(queue);
        answered.await.unwrap_or(Err(StoreError::Stopping))
    }

    pub(super) fn stop(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

async fn run(db: Connections, mut readings: mpsc::Receiver<Reading>) {
    let mut last = 1;
    while let Some(first) = readings.recv().await {
        match last {
            0..=1 => {}
            2..MANY => tokio::time::sleep(PAUSE).await,
            _ => tokio::time::sleep(LONGER_PAUSE).await,
        }
        let mut bytes = first.limit.bytes;
        let mut batch = vec![first];
        while batch.len() < BATCH && bytes < BATCH_BYTES {
            let Ok(next) = readings.try_recv() else { break };
            bytes = bytes.saturating_add(next.limit.bytes);
            batch.push(next);
        }
        last = batch.len();
        // One after the other: what comes meanwhile goes together.
        answer(&db, batch).await;
    }
}

async fn answer(db: &Connections, batch: Vec<Reading>) {
    match db.run(async |db| read(db, &batch).await).await {
        Ok(backlogs) => {
            for (reading, backlog) in batch.into_iter().zip(backlogs) {
                // Whoever asked may have gone away.
                let _ = reading.answer.send(Ok(backlog));
            }
        }
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "mailboxes were not read");
            for reading in batch {
                let _ = reading.answer.send(Err(StoreError::NotRead));
            }
        }
    }
}

fn number(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

async fn read(db: &Object, batch: &[Reading]) -> Result<Vec<Backlog>, StoreError> {
    let query = db.prepare_cached(READ).await?;
    let column = |of: fn(&Reading) -> i64| batch.iter().map(of).collect::<Vec<i64>>();
    let mailboxes = column(|it| it.mailbox.0);
    let cursors = column(|it| it.cursor);
    let messages = column(one_more);
    let bytes = column(|it| number(it.limit.bytes));
    let now = batch.iter().map(|it| it.now_ms).max();
    let rows = db.query(&query, &[&mailboxes, &cursors, &messages, &bytes, &now]).await?;
    let mut by_place: BTreeMap<i64, Vec<Row>> = BTreeMap::new();
    for row in rows {
        by_place.entry(row.try_get(7)?).or_default().push(row);
    }
    let mut backlogs = Vec::with_capacity(batch.len());
    for (reading, place) in batch.iter().zip(1..) {
        let rows = by_place.remove(&place).unwrap_or_default();
        let fits = rows.first().map_or(Ok(true), |row| row.try_get(8))?;
        backlogs.push(if fits { backlog(rows, reading)? } else { part(db, reading).await? });
    }
    Ok(backlogs)
}

async fn part(db: &Object, reading: &Reading) -> Result<Backlog, StoreError> {
    let query = db.prepare_cached(READ_PART).await?;
    let (messages, bytes) = (one_more(reading), number(reading.limit.bytes));
    let (mailbox, cursor, now) = (reading.mailbox.0, reading.cursor, reading.now_ms);
    let rows = db.query(&query, &[&mailbox, &cursor, &messages, &bytes, &now]).await?;
    backlog(rows, reading)
}

/// One more than is wanted tells whether there is more.
fn one_more(reading: &Reading) -> i64 {
    number(reading.limit.messages).saturating_add(1)
}

/// Of the rows of one mailbox: one with its end alone if it has no envelope after the cursor.
fn backlog(rows: Vec<Row>, reading: &Reading) -> Result<Backlog, StoreError> {
    let Some(first) = rows.first() else {
        return Ok(Backlog { envelopes: Vec::new(), covers: 0, end: 0, dropped: 0 });
    };
    let (end, dropped): (i64, i64) = (first.try_get(0)?, first.try_get(1)?);
    let found: Option<i64> = first.try_get(6)?;
    let mut envelopes = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(seq) = row.try_get(2)? else { continue };
        let shared: Option<&[u8]> = row.try_get(5)?;
        envelopes.push(StoredEnvelope {
            seq,
            received_ms: row.try_get(3)?,
            content: blob(&row, 4)?,
            shared: shared.map(Bytes::copy_from_slice).unwrap_or_default(),
        });
    }
    // Where they were not counted all are here.
    let found = found.unwrap_or_else(|| number(envelopes.len()));
    envelopes.sort_unstable_by_key(|envelope| envelope.seq);
    envelopes.truncate(reading.limit.messages);
    let whole = number(envelopes.len()) == found;
    let last = envelopes.last().map_or(reading.cursor, |last| last.seq);
    let covers = if whole { end } else { last };
    Ok(Backlog { envelopes, covers, end, dropped: dropped.unsigned_abs() })
}
