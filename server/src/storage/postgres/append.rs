//! A batch of submissions in one transaction: three ways to the database and back, whatever its size.
//!
//! Locks are taken in one order everywhere: submissions by key, mailboxes by number, then envelopes and payloads.

use std::collections::{BTreeMap, HashMap, HashSet};

use deadpool_postgres::Object;
use sha2::{Digest, Sha256};
use tokio_postgres::Row;

use super::mailbox::{lock, make_room};
use super::recipients::{ACCOUNTS, Accounts, accounts, plan, wanted};
use super::row::bytes;
use crate::storage::{
    Append, AppendAnswer, MailboxId, NewMessage, NodeId, Placed, Recipient, StoreError,
};

/// Notes the keys ($1, with their times $2); if all of them are new, adds to the mailboxes ($3, so many envelopes $4 of so
/// many bytes $5) and stores the envelopes ($6 to $12), each at its place ($7) behind the end of its mailbox. Gives the
/// mailboxes, or the keys that were new if not all were. The inner query locks the mailboxes in the order of their numbers.
const PLACE: &str = "WITH fresh AS (
    INSERT INTO submission (key, at_ms) SELECT * FROM unnest($1::bytea[], $2::bigint[])
    ON CONFLICT DO NOTHING RETURNING key
), filled AS (
    UPDATE mailbox m SET next_seq = m.next_seq + t.n, count = m.count + t.n, bytes = m.bytes + t.size
    FROM (SELECT l.device, t.n, t.size FROM unnest($3::bigint[], $4::bigint[], $5::bigint[]) t (device, n, size)
          JOIN mailbox l ON l.device = t.device
          WHERE (SELECT count(*) FROM fresh) = cardinality($1) ORDER BY l.device FOR UPDATE OF l) t
    WHERE m.device = t.device RETURNING m.device, m.next_seq - t.n AS first, m.count, m.bytes, m.node
), put AS (
    INSERT INTO envelope (mailbox, seq, received_ms, expires_ms, size, payload, body)
    SELECT e.mailbox, f.first + e.place, e.received_ms, e.expires_ms, e.size, e.payload, e.body
    FROM unnest($6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bytea[])
         e (mailbox, place, received_ms, expires_ms, size, payload, body)
    JOIN filled f ON f.device = e.mailbox
)
SELECT device, first, count, bytes, node, NULL::bytea AS key FROM filled
UNION ALL SELECT NULL, NULL, NULL, NULL, NULL, key FROM fresh
WHERE (SELECT count(*) FROM fresh) <> cardinality($1)";

/// A recipient that gets its messages, and where they go.
struct Delivering<'a> {
    append: usize,
    recipient: usize,
    new: &'a Append,
    to: &'a Recipient,
    mailboxes: Vec<MailboxId>,
}

impl<'a> Delivering<'a> {
    fn messages(&self) -> impl Iterator<Item = (MailboxId, &'a NewMessage)> {
        self.mailboxes.iter().copied().zip(&self.to.messages)
    }
}

/// Stores a batch. The answers are those of each submission's recipients. The transaction is left open by an error: do not
/// use the connection again.
pub(super) async fn append(
    db: &Object,
    batch: &[Append],
) -> Result<Vec<Vec<AppendAnswer>>, StoreError> {
    let (query, place) = (db.prepare_cached(ACCOUNTS).await?, db.prepare_cached(PLACE).await?);
    let wanted = wanted(batch);
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&wanted];
    let first = db.query(&query, &parameters);
    let ((), rows) = tokio::try_join!(db.batch_execute("BEGIN"), first)?;
    let (mut answers, mut delivering) = planned(&accounts(rows)?, batch);
    repeated_before_refused(db, batch, &mut answers).await?;
    let mut seen = HashSet::new();
    delivering.retain(|one| seen.insert(one.to.dedup));
    let mut keys = keys(&delivering);
    let mut payloads = HashMap::new();
    if delivering.iter().any(|one| !one.new.shared.is_empty()) {
        // A shared part counts its envelopes, so it has to be known first which are stored.
        let fresh = note(db, &keys).await?;
        delivering.retain(|one| fresh.contains(&one.to.dedup));
        keys.clear();
        let mailboxes: Vec<i64> =
            delivering.iter().flat_map(|one| &one.mailboxes).map(|mailbox| mailbox.0).collect();
        lock(db, &mailboxes).await?;
        payloads = hold_payloads(db, &delivering).await?;
    }
    let mut columns = Columns::of(&delivering, &payloads);
    let mut rows = columns.place(db, &place, &keys).await?;
    if let Some(fresh) = fresh(&rows, &columns)? {
        delivering.retain(|one| fresh.contains(&one.to.dedup));
        columns = Columns::of(&delivering, &payloads);
        rows = columns.place(db, &place, &BTreeMap::new()).await?;
    }
    let mut filled = filled(&rows)?;
    for one in &delivering {
        let placed = placed(one, &mut filled)?;
        let answer = answers.get_mut(one.append).and_then(|own| own.get_mut(one.recipient));
        if let Some(answer) = answer {
            *answer = AppendAnswer::Stored(placed);
        }
    }
    keep_quotas(db, &delivering, &filled, &mut answers).await?;
    db.batch_execute("COMMIT").await?;
    Ok(answers)
}

/// What is refused, and what is to be delivered; that counts as repeated until it is stored.
fn planned<'a>(
    accounts: &Accounts,
    batch: &'a [Append],
) -> (Vec<Vec<AppendAnswer>>, Vec<Delivering<'a>>) {
    let (mut answers, mut delivering) = (Vec::with_capacity(batch.len()), Vec::new());
    for (append, new) in batch.iter().enumerate() {
        let mut own = Vec::with_capacity(new.recipients.len());
        for (recipient, to) in new.recipients.iter().enumerate() {
            own.push(match plan(accounts, to) {
                Ok(mailboxes) => {
                    delivering.push(Delivering { append, recipient, new, to, mailboxes });
                    AppendAnswer::Repeated
                }
                Err(refusal) => refusal,
            });
        }
        answers.push(own);
    }
    (answers, delivering)
}

/// What was accepted before stays accepted, whatever the devices are now.
async fn repeated_before_refused(
    db: &Object,
    batch: &[Append],
    answers: &mut [Vec<AppendAnswer>],
) -> Result<(), StoreError> {
    let recipients = batch.iter().flat_map(|new| &new.recipients);
    let refused: Vec<(&mut AppendAnswer, &Recipient)> = answers
        .iter_mut()
        .flatten()
        .zip(recipients)
        .filter(|(answer, _)| matches!(answer, AppendAnswer::Mismatch(_)))
        .collect();
    if refused.is_empty() {
        return Ok(());
    }
    let keys: Vec<&[u8]> = refused.iter().map(|(_, to)| &to.dedup[..]).collect();
    let query = db.prepare_cached("SELECT key FROM submission WHERE key = ANY($1)").await?;
    let known = key_set(&db.query(&query, &[&keys]).await?, 0)?;
    for (answer, to) in refused {
        if known.contains(&to.dedup) {
            *answer = AppendAnswer::Repeated;
        }
    }
    Ok(())
}

/// The submission keys in their order, with the time at which they came.
fn keys<'a>(delivering: &[Delivering<'a>]) -> BTreeMap<&'a [u8], i64> {
    delivering.iter().map(|one| (&one.to.dedup[..], one.new.now_ms)).collect()
}

/// The submission keys that were not there before; they are now.
async fn note(db: &Object, keys: &BTreeMap<&[u8], i64>) -> Result<HashSet<[u8; 16]>, StoreError> {
    let (keys, times): (Vec<&[u8]>, Vec<i64>) = keys.iter().unzip();
    let sql = "INSERT INTO submission (key, at_ms) SELECT * FROM unnest($1::bytea[], $2::bigint[]) \
               ON CONFLICT DO NOTHING RETURNING key";
    key_set(&db.query(&db.prepare_cached(sql).await?, &[&keys, &times]).await?, 0)
}

fn key_set(rows: &[Row], column: usize) -> Result<HashSet<[u8; 16]>, StoreError> {
    rows.iter().map(|row| bytes(row, column)).collect()
}

/// The shared parts of submissions that have one, by submission, with a reference for each envelope that ends with it.
async fn hold_payloads(
    db: &Object,
    delivering: &[Delivering<'_>],
) -> Result<HashMap<usize, i64>, StoreError> {
    let mut refs: BTreeMap<usize, (i64, &[u8])> = BTreeMap::new();
    for one in delivering.iter().filter(|one| !one.new.shared.is_empty()) {
        let count = i64::try_from(one.mailboxes.len()).unwrap_or(i64::MAX);
        refs.entry(one.append).or_insert((0, &one.new.shared)).0 += count;
    }
    let mut held = HashMap::new();
    for (append, (count, shared)) in refs {
        let sql = "INSERT INTO payload (hash, refs, body) VALUES ($1, $2, $3) \
                   ON CONFLICT (hash) DO UPDATE SET refs = payload.refs + $2 RETURNING id";
        let hash = Sha256::digest(shared);
        let insert = db.prepare_cached(sql).await?;
        let row = db.query_one(&insert, &[&&hash[..], &count, &shared]).await?;
        held.insert(append, row.try_get(0)?);
    }
    Ok(held)
}

/// What is added, in columns.
#[derive(Default)]
struct Columns<'a> {
    adding: BTreeMap<MailboxId, (i64, i64)>,
    mailbox: Vec<i64>,
    place: Vec<i64>,
    received_ms: Vec<i64>,
    expires_ms: Vec<i64>,
    size: Vec<i64>,
    payload: Vec<Option<i64>>,
    body: Vec<&'a [u8]>,
}

impl<'a> Columns<'a> {
    fn of(delivering: &[Delivering<'a>], payloads: &HashMap<usize, i64>) -> Self {
        let mut columns = Self::default();
        for one in delivering {
            let payload = payloads.get(&one.append).copied();
            for (mailbox, message) in one.messages() {
                columns.push(mailbox, one.new, message, payload);
            }
        }
        columns
    }

    fn push(
        &mut self,
        mailbox: MailboxId,
        new: &Append,
        message: &'a NewMessage,
        payload: Option<i64>,
    ) {
        let size = message.content.len().saturating_add(new.shared.len());
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        let (count, bytes) = self.adding.entry(mailbox).or_default();
        self.mailbox.push(mailbox.0);
        self.place.push(*count);
        self.received_ms.push(new.now_ms);
        self.expires_ms.push(new.expires_ms);
        self.size.push(size);
        self.payload.push(payload);
        self.body.push(&message.content);
        *count += 1;
        *bytes = bytes.saturating_add(size);
    }

    async fn place(
        &self,
        db: &Object,
        place: &tokio_postgres::Statement,
        keys: &BTreeMap<&[u8], i64>,
    ) -> Result<Vec<Row>, StoreError> {
        if self.adding.is_empty() {
            return Ok(Vec::new());
        }
        let (keys, times): (Vec<&[u8]>, Vec<i64>) = keys.iter().unzip();
        let mailboxes: Vec<i64> = self.adding.keys().map(|mailbox| mailbox.0).collect();
        let (counts, sizes): (Vec<i64>, Vec<i64>) = self.adding.values().copied().unzip();
        let Self { mailbox, place: at, received_ms, expires_ms, size, payload, body, .. } = self;
        let rows = db
            .query(
                place,
                &[
                    &keys,
                    &times,
                    &mailboxes,
                    &counts,
                    &sizes,
                    mailbox,
                    at,
                    received_ms,
                    expires_ms,
                    size,
                    payload,
                    body,
                ],
            )
            .await?;
        Ok(rows)
    }
}

/// The keys that were new, if not all of them were: nothing was placed.
fn fresh(rows: &[Row], columns: &Columns<'_>) -> Result<Option<HashSet<[u8; 16]>>, StoreError> {
    let some_repeated = match rows.first() {
        Some(row) => row.try_get::<_, Option<&[u8]>>(5)?.is_some(),
        None => !columns.adding.is_empty(),
    };
    some_repeated.then(|| key_set(rows, 5)).transpose()
}

/// The state of a mailbox after the batch.
struct Filled {
    /// Of the next envelope of the batch.
    seq: i64,
    count: i64,
    bytes: i64,
    node: Option<NodeId>,
}

fn filled(rows: &[Row]) -> Result<BTreeMap<MailboxId, Filled>, StoreError> {
    let filled = rows.iter().map(|row| {
        let node: Option<i64> = row.try_get(4)?;
        let state = Filled {
            seq: row.try_get(1)?,
            count: row.try_get(2)?,
            bytes: row.try_get(3)?,
            node: node.map(NodeId),
        };
        Ok((MailboxId(row.try_get(0)?), state))
    });
    filled.collect()
}

fn placed(
    one: &Delivering<'_>,
    filled: &mut BTreeMap<MailboxId, Filled>,
) -> Result<Vec<Placed>, StoreError> {
    let placed = one.mailboxes.iter().map(|mailbox| {
        let state = filled.get_mut(mailbox).ok_or(StoreError::Damaged)?;
        let seq = state.seq;
        state.seq += 1;
        Ok(Placed { mailbox: *mailbox, seq, dropped: 0, node: state.node })
    });
    placed.collect()
}

/// Mailboxes that are over their quota lose their oldest; the last one placed there tells how many.
async fn keep_quotas(
    db: &Object,
    delivering: &[Delivering<'_>],
    filled: &BTreeMap<MailboxId, Filled>,
    answers: &mut [Vec<AppendAnswer>],
) -> Result<(), StoreError> {
    let mut over = BTreeMap::new();
    for one in delivering {
        let quota = one.new.quota;
        for (place, mailbox) in one.mailboxes.iter().enumerate() {
            let Some(state) = filled.get(mailbox) else { continue };
            if state.count > quota.messages || state.bytes > quota.bytes {
                over.insert(*mailbox, (quota, one.append, one.recipient, place));
            }
        }
    }
    for (mailbox, (quota, append, recipient, place)) in over {
        let dropped = make_room(db, mailbox, quota).await?;
        let answer = answers.get_mut(append).and_then(|own| own.get_mut(recipient));
        if let Some(AppendAnswer::Stored(placed)) = answer
            && let Some(placed) = placed.get_mut(place)
        {
            placed.dropped = dropped;
        }
    }
    Ok(())
}
