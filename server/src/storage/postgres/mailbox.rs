//! Mailboxes. A batch of submissions is a handful of statements over arrays, whatever its size.
//!
//! Locks are taken in one order everywhere: submissions by key, mailboxes by number, then envelopes and payloads.

use std::collections::{BTreeMap, HashMap, HashSet};

use deadpool_postgres::{Object, Transaction};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio_postgres::Row;

use super::row::{blob, bytes, small};
use crate::storage::{
    Append, AppendAnswer, Authority, Backlog, MailboxId, Mismatch, NewMessage, NodeId, Placed,
    ReadLimit, Recipient, StoreError, StoredEnvelope,
};

/// Rows that one purge looks at, of each table.
const SLICE: i64 = 500;

struct Device {
    mailbox: MailboxId,
    device: u8,
    registration_id: u32,
}

struct Account {
    access_hash: [u8; 32],
    devices: Vec<Device>,
}

/// A recipient that gets its messages, and where they go.
struct Delivering<'a> {
    append: usize,
    recipient: usize,
    to: &'a Recipient,
    mailboxes: Vec<MailboxId>,
}

/// Stores a batch in the transaction. The answers are those of each submission's recipients.
pub(super) async fn append(
    db: &Transaction<'_>,
    batch: &[Append],
) -> Result<Vec<Vec<AppendAnswer>>, StoreError> {
    let accounts = accounts(db, batch).await?;
    let (mut answers, mut delivering) = (Vec::with_capacity(batch.len()), Vec::new());
    for (append, new) in batch.iter().enumerate() {
        let mut own = Vec::with_capacity(new.recipients.len());
        for (recipient, to) in new.recipients.iter().enumerate() {
            own.push(match plan(&accounts, to) {
                Ok(mailboxes) => {
                    delivering.push(Delivering { append, recipient, to, mailboxes });
                    AppendAnswer::Repeated
                }
                Err(refusal) => refusal,
            });
        }
        answers.push(own);
    }
    repeated_before_refused(db, batch, &mut answers).await?;
    let fresh = fresh(db, batch, &delivering).await?;
    let mut seen = HashSet::new();
    delivering.retain(|one| fresh.contains(&one.to.dedup) && seen.insert(one.to.dedup));
    let placed = place(db, batch, &delivering).await?;
    for (one, placed) in delivering.iter().zip(placed) {
        let answer = answers.get_mut(one.append).and_then(|own| own.get_mut(one.recipient));
        if let Some(answer) = answer {
            *answer = AppendAnswer::Stored(placed);
        }
    }
    Ok(answers)
}

/// The accounts of all recipients, with their devices in order.
async fn accounts(
    db: &Transaction<'_>,
    batch: &[Append],
) -> Result<HashMap<[u8; 16], Account>, StoreError> {
    let wanted: HashSet<&[u8]> =
        batch.iter().flat_map(|new| &new.recipients).map(|to| &to.account.0[..]).collect();
    let wanted: Vec<&[u8]> = wanted.into_iter().collect();
    let sql = "SELECT a.aci, a.access_hash, d.id, d.device, d.registration_id FROM account a \
               LEFT JOIN device d ON d.account = a.id WHERE a.aci = ANY($1) ORDER BY d.device";
    let rows = db.query(&db.prepare_cached(sql).await?, &[&wanted]).await?;
    let mut accounts = HashMap::with_capacity(wanted.len());
    for row in rows {
        let access_hash = bytes(&row, 1)?;
        let account = accounts
            .entry(bytes(&row, 0)?)
            .or_insert_with(|| Account { access_hash, devices: Vec::new() });
        if let Some(mailbox) = row.try_get(2)? {
            account.devices.push(Device {
                mailbox: MailboxId(mailbox),
                device: small(row.try_get::<_, i16>(3)?)?,
                registration_id: small(row.try_get::<_, i32>(4)?)?,
            });
        }
    }
    Ok(accounts)
}

/// The mailboxes of the messages, if the sender may and the devices are those of the account. An unknown account and
/// a wrong key take the same way to the same answer.
fn plan(
    accounts: &HashMap<[u8; 16], Account>,
    to: &Recipient,
) -> Result<Vec<MailboxId>, AppendAnswer> {
    let found = accounts.get(&to.account.0);
    let account = match to.authority {
        Authority::Token => found.ok_or(AppendAnswer::UnknownAccount)?,
        Authority::AccessHash(shown) => {
            let hash = found.map_or([0; 32], |account| account.access_hash);
            let equal: bool = shown.ct_eq(&hash).into();
            found.filter(|_| equal).ok_or(AppendAnswer::Unauthorised)?
        }
    };
    let mut mismatch = Mismatch::default();
    let mut mailboxes = Vec::with_capacity(to.messages.len());
    for message in &to.messages {
        match account.devices.iter().find(|device| device.device == message.device) {
            None => mismatch.extra.push(message.device),
            Some(device) if device.registration_id != message.registration_id => {
                mismatch.stale.push(message.device);
            }
            Some(device) => mailboxes.push(device.mailbox),
        }
    }
    let named = |device: &&Device| to.messages.iter().any(|m| m.device == device.device);
    mismatch.missing =
        account.devices.iter().filter(|d| !named(d)).map(|device| device.device).collect();
    if mismatch == Mismatch::default() {
        Ok(mailboxes)
    } else {
        Err(AppendAnswer::Mismatch(mismatch))
    }
}

/// What was accepted before stays accepted, whatever the devices are now.
async fn repeated_before_refused(
    db: &Transaction<'_>,
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
    let known = key_set(db.query(&query, &[&keys]).await?)?;
    for (answer, to) in refused {
        if known.contains(&to.dedup) {
            *answer = AppendAnswer::Repeated;
        }
    }
    Ok(())
}

/// The submission keys that were not there before; they are now.
async fn fresh(
    db: &Transaction<'_>,
    batch: &[Append],
    delivering: &[Delivering<'_>],
) -> Result<HashSet<[u8; 16]>, StoreError> {
    let mut keys: BTreeMap<&[u8], i64> = BTreeMap::new();
    for one in delivering {
        let now_ms = batch.get(one.append).map_or(0, |new| new.now_ms);
        keys.insert(&one.to.dedup, now_ms);
    }
    if keys.is_empty() {
        return Ok(HashSet::new());
    }
    let (keys, times): (Vec<&[u8]>, Vec<i64>) = keys.into_iter().unzip();
    let sql = "INSERT INTO submission (key, at_ms) SELECT * FROM unnest($1::bytea[], $2::bigint[]) \
               ON CONFLICT DO NOTHING RETURNING key";
    key_set(db.query(&db.prepare_cached(sql).await?, &[&keys, &times]).await?)
}

fn key_set(rows: Vec<Row>) -> Result<HashSet<[u8; 16]>, StoreError> {
    rows.iter().map(|row| bytes(row, 0)).collect()
}

/// The state of a mailbox while the batch is placed.
struct Filling {
    next_seq: i64,
    count: i64,
    bytes: i64,
    node: Option<NodeId>,
    dropped: u64,
    last: Option<(usize, usize)>,
}

/// Numbers the messages and stores them. The mailbox rows stay locked until the commit, so that a reader never sees
/// a later number before an earlier one.
async fn place(
    db: &Transaction<'_>,
    batch: &[Append],
    delivering: &[Delivering<'_>],
) -> Result<Vec<Vec<Placed>>, StoreError> {
    let mut adding: BTreeMap<MailboxId, (i64, i64)> = BTreeMap::new();
    for (new, mailbox, message) in messages(batch, delivering) {
        let (count, bytes) = adding.entry(mailbox).or_default();
        *count += 1;
        *bytes += size(new, message);
    }
    if adding.is_empty() {
        return Ok(delivering.iter().map(|_| Vec::new()).collect());
    }
    let mut filling = fill(db, &adding).await?;
    let payloads = hold_payloads(db, batch, delivering).await?;
    let mut rows = Rows::default();
    let mut all = Vec::with_capacity(delivering.len());
    for (n, one) in delivering.iter().enumerate() {
        let Some(new) = batch.get(one.append) else { continue };
        let payload = payloads.get(&one.append).copied();
        let mut placed = Vec::with_capacity(one.mailboxes.len());
        for (mailbox, message) in one.mailboxes.iter().zip(&one.to.messages) {
            let state = filling.get_mut(mailbox).ok_or(StoreError::Damaged)?;
            let seq = state.next_seq;
            state.next_seq += 1;
            state.last = Some((n, placed.len()));
            rows.push(*mailbox, seq, (new, message), payload);
            placed.push(Placed { mailbox: *mailbox, seq, dropped: 0, node: state.node });
        }
        all.push(placed);
    }
    rows.insert(db).await?;
    for (mailbox, state) in &mut filling {
        let last = state.last.and_then(|(n, _)| batch.get(delivering.get(n)?.append));
        let Some(quota) = last.map(|new| new.quota) else { continue };
        let excess = (state.count - quota.messages, state.bytes - quota.bytes);
        if excess.0 > 0 || excess.1 > 0 {
            state.dropped = make_room(db, *mailbox, excess).await?;
            let last = state.last.and_then(|(n, m)| all.get_mut(n)?.get_mut(m));
            if let Some(last) = last {
                last.dropped = state.dropped;
            }
        }
    }
    Ok(all)
}

fn messages<'a>(
    batch: &'a [Append],
    delivering: &'a [Delivering<'a>],
) -> impl Iterator<Item = (&'a Append, MailboxId, &'a NewMessage)> {
    delivering.iter().flat_map(move |one| {
        let new = batch.get(one.append);
        let pairs = one.mailboxes.iter().zip(&one.to.messages);
        new.into_iter().flat_map(move |new| pairs.clone().map(move |(m, msg)| (new, *m, msg)))
    })
}

fn size(new: &Append, message: &NewMessage) -> i64 {
    i64::try_from(message.content.len().saturating_add(new.shared.len())).unwrap_or(i64::MAX)
}

/// Adds to the mailboxes; gives the first free number of each.
async fn fill(
    db: &Transaction<'_>,
    adding: &BTreeMap<MailboxId, (i64, i64)>,
) -> Result<BTreeMap<MailboxId, Filling>, StoreError> {
    let mailboxes: Vec<i64> = adding.keys().map(|mailbox| mailbox.0).collect();
    let (counts, sizes): (Vec<i64>, Vec<i64>) = adding.values().copied().unzip();
    // The rows are locked in the order of their numbers by the inner query, which the update then joins.
    let sql = "UPDATE mailbox m SET next_seq = m.next_seq + t.n, count = m.count + t.n, bytes = m.bytes + t.size \
               FROM (SELECT l.device, t.n, t.size FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) t (device, n, size) \
               JOIN mailbox l ON l.device = t.device ORDER BY l.device FOR UPDATE OF l) t \
               WHERE m.device = t.device RETURNING m.device, m.next_seq - t.n, m.count, m.bytes, m.node";
    let rows = db.query(&db.prepare_cached(sql).await?, &[&mailboxes, &counts, &sizes]).await?;
    let filling = rows.iter().map(|row| {
        let node: Option<i64> = row.try_get(4)?;
        let state = Filling {
            next_seq: row.try_get(1)?,
            count: row.try_get(2)?,
            bytes: row.try_get(3)?,
            node: node.map(NodeId),
            dropped: 0,
            last: None,
        };
        Ok((MailboxId(row.try_get(0)?), state))
    });
    filling.collect()
}

/// The shared parts of submissions that have one, with a reference for each envelope that ends with it.
async fn hold_payloads(
    db: &Transaction<'_>,
    batch: &[Append],
    delivering: &[Delivering<'_>],
) -> Result<HashMap<usize, i64>, StoreError> {
    let mut refs: BTreeMap<usize, i64> = BTreeMap::new();
    for one in delivering {
        let count = i64::try_from(one.mailboxes.len()).unwrap_or(i64::MAX);
        *refs.entry(one.append).or_default() += count;
    }
    let mut held = HashMap::new();
    for (append, count) in refs {
        let Some(new) = batch.get(append).filter(|new| !new.shared.is_empty()) else { continue };
        let sql = "INSERT INTO payload (hash, refs, body) VALUES ($1, $2, $3) \
                   ON CONFLICT (hash) DO UPDATE SET refs = payload.refs + $2 RETURNING id";
        let hash = Sha256::digest(&new.shared);
        let insert = db.prepare_cached(sql).await?;
        let row = db.query_one(&insert, &[&&hash[..], &count, &&new.shared[..]]).await?;
        held.insert(append, row.try_get(0)?);
    }
    Ok(held)
}

/// Columns of new envelopes.
#[derive(Default)]
struct Rows<'a> {
    mailbox: Vec<i64>,
    seq: Vec<i64>,
    received_ms: Vec<i64>,
    expires_ms: Vec<i64>,
    size: Vec<i64>,
    payload: Vec<Option<i64>>,
    body: Vec<&'a [u8]>,
}

impl<'a> Rows<'a> {
    fn push(
        &mut self,
        mailbox: MailboxId,
        seq: i64,
        (new, message): (&'a Append, &'a NewMessage),
        payload: Option<i64>,
    ) {
        self.mailbox.push(mailbox.0);
        self.seq.push(seq);
        self.received_ms.push(new.now_ms);
        self.expires_ms.push(new.expires_ms);
        self.size.push(size(new, message));
        self.payload.push(payload);
        self.body.push(&message.content);
    }

    async fn insert(self, db: &Transaction<'_>) -> Result<(), StoreError> {
        let sql = "INSERT INTO envelope (mailbox, seq, received_ms, expires_ms, size, payload, body) \
                   SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], \
                   $6::bigint[], $7::bytea[])";
        let insert = db.prepare_cached(sql).await?;
        let Self { mailbox, seq, received_ms, expires_ms, size, payload, body } = self;
        db.execute(&insert, &[&mailbox, &seq, &received_ms, &expires_ms, &size, &payload, &body])
            .await?;
        Ok(())
    }
}

/// Drops the oldest until the mailbox keeps its quota; it is over by so many envelopes and bytes.
async fn make_room(
    db: &Transaction<'_>,
    mailbox: MailboxId,
    (count, bytes): (i64, i64),
) -> Result<u64, StoreError> {
    let sql = "DELETE FROM envelope e USING (SELECT seq, size, row_number() OVER w AS place, sum(size) OVER w AS upto \
               FROM envelope WHERE mailbox = $1 WINDOW w AS (ORDER BY seq)) old \
               WHERE e.mailbox = $1 AND e.seq = old.seq AND (old.place <= $2 OR old.upto - old.size < $3::bigint) \
               RETURNING e.mailbox, e.size, e.payload";
    let gone = db.query(&db.prepare_cached(sql).await?, &[&mailbox.0, &count, &bytes]).await?;
    let gone = Gone::of(&gone)?;
    let dropped = gone.mailboxes.values().map(|(count, _)| count.unsigned_abs()).sum();
    gone.forget(db, Dropped::Unread).await?;
    Ok(dropped)
}

/// Whether the device has to be told of what is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dropped {
    Acknowledged,
    Unread,
}

/// Envelopes that were deleted: their number and size by mailbox, their number by payload.
#[derive(Default)]
struct Gone {
    mailboxes: BTreeMap<i64, (i64, i64)>,
    payloads: BTreeMap<i64, i64>,
}

impl Gone {
    /// Rows of (mailbox, size, payload).
    fn of(rows: &[Row]) -> Result<Self, StoreError> {
        let mut gone = Self::default();
        for row in rows {
            let entry = gone.mailboxes.entry(row.try_get(0)?).or_default();
            entry.0 += 1;
            entry.1 += row.try_get::<_, i64>(1)?;
            if let Some(payload) = row.try_get(2)? {
                *gone.payloads.entry(payload).or_default() += 1;
            }
        }
        Ok(gone)
    }

    async fn forget(self, db: &Transaction<'_>, dropped: Dropped) -> Result<(), StoreError> {
        if self.mailboxes.is_empty() {
            return Ok(());
        }
        let told = dropped == Dropped::Acknowledged;
        let (mailboxes, gone): (Vec<i64>, Vec<(i64, i64)>) = self.mailboxes.into_iter().unzip();
        let (counts, sizes): (Vec<i64>, Vec<i64>) = gone.into_iter().unzip();
        let sql = "UPDATE mailbox m SET count = m.count - t.n, bytes = m.bytes - t.size, \
                   dropped = m.dropped + CASE WHEN $4 THEN 0 ELSE t.n END \
                   FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) t (device, n, size) WHERE m.device = t.device";
        db.execute(&db.prepare_cached(sql).await?, &[&mailboxes, &counts, &sizes, &told]).await?;
        if self.payloads.is_empty() {
            return Ok(());
        }
        let (payloads, counts): (Vec<i64>, Vec<i64>) = self.payloads.into_iter().unzip();
        let sql = "UPDATE payload p SET refs = p.refs - t.n FROM (SELECT l.id, t.n FROM \
                   unnest($1::bigint[], $2::bigint[]) t (id, n) JOIN payload l ON l.id = t.id ORDER BY l.id FOR UPDATE OF l) t \
                   WHERE p.id = t.id";
        db.execute(&db.prepare_cached(sql).await?, &[&payloads, &counts]).await?;
        let sql = "DELETE FROM payload WHERE id = ANY($1) AND refs <= 0";
        db.execute(&db.prepare_cached(sql).await?, &[&payloads]).await?;
        Ok(())
    }
}

/// Locks mailboxes in the order of their numbers.
async fn lock(db: &Transaction<'_>, mailboxes: &[i64]) -> Result<(), StoreError> {
    let sql = "SELECT 1 FROM mailbox WHERE device = ANY($1) ORDER BY device FOR UPDATE";
    db.query(&db.prepare_cached(sql).await?, &[&mailboxes]).await?;
    Ok(())
}

pub(super) async fn delete(
    db: &Transaction<'_>,
    deletes: &BTreeMap<MailboxId, Vec<i64>>,
) -> Result<(), StoreError> {
    let numbers: Vec<i64> = deletes.keys().map(|mailbox| mailbox.0).collect();
    lock(db, &numbers).await?;
    let pairs = deletes.iter().flat_map(|(mailbox, seqs)| seqs.iter().map(|seq| (mailbox.0, *seq)));
    let (mailboxes, seqs): (Vec<i64>, Vec<i64>) = pairs.unzip();
    let sql = "DELETE FROM envelope e USING unnest($1::bigint[], $2::bigint[]) t (mailbox, seq) \
               WHERE e.mailbox = t.mailbox AND e.seq = t.seq RETURNING e.mailbox, e.size, e.payload";
    let gone = db.query(&db.prepare_cached(sql).await?, &[&mailboxes, &seqs]).await?;
    Gone::of(&gone)?.forget(db, Dropped::Acknowledged).await
}

pub(super) async fn read_after(
    db: &Object,
    mailbox: MailboxId,
    cursor: i64,
    limit: ReadLimit,
) -> Result<Backlog, StoreError> {
    // One statement, one picture: the mailbox's end and its envelopes belong together.
    let sql = "SELECT m.next_seq - 1, m.dropped, e.seq, e.received_ms, e.body, p.body, e.behind \
               FROM mailbox m LEFT JOIN LATERAL (SELECT * FROM (SELECT i.*, row_number() OVER w AS place, \
               sum(i.size) OVER w AS upto, count(*) OVER () AS behind FROM (SELECT seq, received_ms, size, payload, body \
               FROM envelope WHERE mailbox = m.device AND seq > $2 ORDER BY seq LIMIT $3) i WINDOW w AS (ORDER BY i.seq)) n \
               WHERE n.place = 1 OR (n.place < $3 AND n.upto <= $4::bigint)) e ON true \
               LEFT JOIN payload p ON p.id = e.payload WHERE m.device = $1 ORDER BY e.seq";
    let query = db.prepare_cached(sql).await?;
    let number = |limit: usize| i64::try_from(limit).unwrap_or(i64::MAX);
    let (rows, bytes) = (number(limit.messages).saturating_add(1), number(limit.bytes));
    let rows = db.query(&query, &[&mailbox.0, &cursor, &rows, &bytes]).await?;
    let Some(first) = rows.first() else {
        return Ok(Backlog { envelopes: Vec::new(), covers: 0, end: 0, dropped: 0 });
    };
    let (end, dropped): (i64, i64) = (first.try_get(0)?, first.try_get(1)?);
    let found = first.try_get::<_, Option<i64>>(6)?.unwrap_or(0);
    let mut envelopes = Vec::with_capacity(rows.len());
    for row in rows.iter().filter(|_| found > 0) {
        let shared: Option<&[u8]> = row.try_get(5)?;
        envelopes.push(StoredEnvelope {
            seq: row.try_get(2)?,
            received_ms: row.try_get(3)?,
            content: blob(row, 4)?,
            shared: shared.map(bytes::Bytes::copy_from_slice).unwrap_or_default(),
        });
    }
    let whole = number(envelopes.len()) == found;
    let last = envelopes.last().map_or(cursor, |last| last.seq);
    Ok(Backlog {
        envelopes,
        covers: if whole { end } else { last },
        end,
        dropped: dropped.unsigned_abs(),
    })
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

pub(super) async fn purge(
    db: &Transaction<'_>,
    now_ms: i64,
    submissions_before_ms: i64,
) -> Result<u64, StoreError> {
    let sql = "SELECT DISTINCT mailbox FROM (SELECT mailbox FROM envelope WHERE expires_ms <= $1 \
               ORDER BY expires_ms LIMIT $2) old";
    let old = db.query(&db.prepare_cached(sql).await?, &[&now_ms, &SLICE]).await?;
    let mailboxes = old.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i64>, _>>()?;
    let mut gone = Vec::new();
    if !mailboxes.is_empty() {
        lock(db, &mailboxes).await?;
        let sql = "DELETE FROM envelope e USING (SELECT mailbox, seq FROM envelope WHERE expires_ms <= $1 \
                   AND mailbox = ANY($3) ORDER BY expires_ms LIMIT $2) old \
                   WHERE e.mailbox = old.mailbox AND e.seq = old.seq RETURNING e.mailbox, e.size, e.payload";
        gone = db.query(&db.prepare_cached(sql).await?, &[&now_ms, &SLICE, &mailboxes]).await?;
        Gone::of(&gone)?.forget(db, Dropped::Unread).await?;
    }
    let sql = "DELETE FROM submission WHERE key IN (SELECT key FROM submission WHERE at_ms < $1 \
               ORDER BY at_ms LIMIT $2 FOR UPDATE SKIP LOCKED)";
    let delete = db.prepare_cached(sql).await?;
    let forgotten = db.execute(&delete, &[&submissions_before_ms, &SLICE]).await?;
    Ok((gone.len() as u64).saturating_add(forgotten))
}
