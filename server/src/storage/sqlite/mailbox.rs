//! Mailboxes: envelopes are appended in the order of arrival and read by (mailbox, seq). Nothing here names a sender.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::accepted::Accepted;
use super::walk::Walk;
use super::{SLICE, WALK};
use crate::storage::{
    Append, AppendAnswer, Authority, Backlog, Life, Located, Location, MailboxId, MailboxState,
    Mismatch, NewMessage, Placed, Quota, ReadLimit, Recipient, StoredEnvelope,
};

pub(super) fn append(
    db: &Connection,
    accepted: &Accepted,
    new: &Append,
) -> rusqlite::Result<Vec<AppendAnswer>> {
    let payload = Payload::hold(db, new)?;
    let answers = new.recipients.iter().map(|to| append_for((db, accepted), to, &payload, new));
    let answers = answers.collect::<rusqlite::Result<Vec<_>>>()?;
    payload.release_surplus(db, &answers)?;
    Ok(answers)
}

fn append_for(
    (db, accepted): (&Connection, &Accepted),
    to: &Recipient,
    payload: &Payload,
    new: &Append,
) -> rusqlite::Result<AppendAnswer> {
    let account = match authorised(db, to)? {
        Ok(account) => account,
        Err(refusal) => return Ok(refusal),
    };
    let devices = receivers(db, account, to.authority)?;
    let plan = match plan(&devices, &to.messages) {
        Ok(plan) => plan,
        Err(mismatch) => {
            return Ok(if accepted.contains(db, &to.dedup)? {
                AppendAnswer::Repeated
            } else {
                AppendAnswer::Mismatch(mismatch)
            });
        }
    };
    if plan.is_empty() {
        // Of the only device of an account to the others.
        return Ok(AppendAnswer::Stored(Vec::new()));
    }
    if !accepted.note(db, &to.dedup, new.now_ms)? {
        return Ok(AppendAnswer::Repeated);
    }
    let placed = plan.into_iter().map(|(device, message)| put(db, device, message, payload, new));
    placed.collect::<rusqlite::Result<_>>().map(AppendAnswer::Stored)
}

pub(super) fn locate(db: &Connection, recipients: &[Recipient]) -> rusqlite::Result<Vec<Located>> {
    recipients.iter().map(|to| locate_one(db, to)).collect()
}

fn locate_one(db: &Connection, to: &Recipient) -> rusqlite::Result<Located> {
    let account = match authorised(db, to)? {
        Ok(account) => account,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let devices = receivers(db, account, to.authority)?;
    Ok(match plan(&devices, &to.messages) {
        Ok(plan) => Ok(plan
            .into_iter()
            .map(|(device, _)| Location { mailbox: device.mailbox, node: None })
            .collect()),
        Err(mismatch) => Err(AppendAnswer::Mismatch(mismatch)),
    })
}

/// The shared part of a submission, held by one reference for each message while it is being stored.
struct Payload {
    row: Option<i64>,
    size: i64,
    held: i64,
}

impl Payload {
    fn hold(db: &Connection, new: &Append) -> rusqlite::Result<Self> {
        let size = signed(new.shared.len());
        let held = signed(new.recipients.iter().map(|to| to.messages.len()).sum());
        // What nobody ends with would never go.
        if size == 0 || held == 0 {
            return Ok(Self { row: None, size, held });
        }
        let hash: [u8; 32] = Sha256::digest(&new.shared).into();
        let sql = "INSERT INTO payload (hash, refs, body) VALUES (?1, ?2, ?3) \
                   ON CONFLICT (hash) DO UPDATE SET refs = refs + ?2 RETURNING id";
        let values = params![hash, held, &new.shared[..]];
        let row = db.prepare_cached(sql)?.query_row(values, |row| row.get(0))?;
        Ok(Self { row: Some(row), size, held })
    }

    /// Gives up the references of messages that were not stored.
    fn release_surplus(&self, db: &Connection, answers: &[AppendAnswer]) -> rusqlite::Result<()> {
        let stored = answers.iter().map(|answer| match answer {
            AppendAnswer::Stored(placed) => signed(placed.len()),
            _ => 0,
        });
        release(db, self.row, self.held - stored.sum::<i64>())
    }
}

/// So many envelopes fewer end with this payload.
fn release(db: &Connection, payload: Option<i64>, count: i64) -> rusqlite::Result<()> {
    let (Some(row), 1..) = (payload, count) else { return Ok(()) };
    let sql = "UPDATE payload SET refs = refs - ?2 WHERE id = ?1 RETURNING refs";
    let left: Option<i64> =
        db.prepare_cached(sql)?.query_row([row, count], |row| row.get(0)).optional()?;
    if left.is_some_and(|left| left <= 0) {
        db.prepare_cached("DELETE FROM payload WHERE id = ?1")?.execute([row])?;
    }
    Ok(())
}

/// The recipient's number. An unknown account and a wrong key take the same way to the same answer.
fn authorised(db: &Connection, to: &Recipient) -> rusqlite::Result<Result<i64, AppendAnswer>> {
    let found: Option<(i64, [u8; 32])> = db
        .prepare_cached("SELECT id, access_hash FROM account WHERE aci = ?1")?
        .query_row([to.account.0], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(match (to.authority, found) {
        (Authority::Token | Authority::Own(_), Some((account, _))) => Ok(account),
        (Authority::Token | Authority::Own(_), None) => Err(AppendAnswer::UnknownAccount),
        (Authority::AccessHash(shown), found) => {
            let (account, hash) =
                found.map_or((None, [0; 32]), |(account, hash)| (Some(account), hash));
            let equal: bool = shown.ct_eq(&hash).into();
            account.filter(|_| equal).ok_or(AppendAnswer::Unauthorised)
        }
    })
}

/// A device of the recipient, and what its mailbox holds.
struct Device {
    mailbox: MailboxId,
    device: u8,
    registration_id: u32,
    next_seq: i64,
    count: i64,
    bytes: i64,
}

/// The devices of the account, but the one of it that sends.
fn receivers(db: &Connection, account: i64, by: Authority) -> rusqlite::Result<Vec<Device>> {
    let mut devices = devices(db, account)?;
    devices.retain(|device| !by.is_own(device.device));
    Ok(devices)
}

fn devices(db: &Connection, account: i64) -> rusqlite::Result<Vec<Device>> {
    let sql = "SELECT d.id, d.device, d.registration_id, m.next_seq, m.count, m.bytes \
               FROM device d JOIN mailbox m ON m.device = d.id WHERE d.account = ?1 ORDER BY d.device";
    let mut query = db.prepare_cached(sql)?;
    let rows = query.query_map([account], |row| {
        Ok(Device {
            mailbox: MailboxId(row.get(0)?),
            device: row.get(1)?,
            registration_id: row.get(2)?,
            next_seq: row.get(3)?,
            count: row.get(4)?,
            bytes: row.get(5)?,
        })
    })?;
    rows.collect()
}

/// One message for each device, in the order of the messages, or how they differ.
fn plan<'a>(
    devices: &'a [Device],
    messages: &'a [NewMessage],
) -> Result<Vec<(&'a Device, &'a NewMessage)>, Mismatch> {
    let mut mismatch = Mismatch::default();
    let mut plan = Vec::with_capacity(messages.len());
    for message in messages {
        match devices.iter().find(|device| device.device == message.device) {
            None => mismatch.extra.push(message.device),
            Some(device) if device.registration_id != message.registration_id => {
                mismatch.stale.push(message.device)
            }
            Some(device) => plan.push((device, message)),
        }
    }
    let named = |device: &&Device| messages.iter().any(|message| message.device == device.device);
    mismatch.missing =
        devices.iter().filter(|device| !named(device)).map(|device| device.device).collect();
    if mismatch == Mismatch::default() { Ok(plan) } else { Err(mismatch) }
}

fn put(
    db: &Connection,
    device: &Device,
    message: &NewMessage,
    payload: &Payload,
    new: &Append,
) -> rusqlite::Result<Placed> {
    let (mailbox, seq) = (device.mailbox, device.next_seq);
    let size = signed(message.content.len()) + payload.size;
    let (count, bytes) = (device.count + 1, device.bytes + size);
    // No RETURNING: SQLite keeps its rows in a table of their own first.
    let sql = "UPDATE mailbox SET next_seq = ?2, count = ?3, bytes = ?4 WHERE device = ?1";
    db.prepare_cached(sql)?.execute([mailbox.0, seq + 1, count, bytes])?;
    let sql = "INSERT INTO envelope (mailbox, seq, received_ms, expires_ms, size, payload, body, short) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    db.prepare_cached(sql)?.execute(params![
        mailbox.0,
        seq,
        new.now_ms,
        new.expires_ms,
        size,
        payload.row,
        &message.content[..],
        (new.life == Life::Short).then_some(1)
    ])?;
    let dropped = make_room(db, mailbox, (count, bytes), new.quota)?;
    Ok(Placed { mailbox, seq, dropped, node: None })
}

/// Drops the oldest until the mailbox keeps its quota.
fn make_room(
    db: &Connection,
    mailbox: MailboxId,
    held: (i64, i64),
    quota: Quota,
) -> rusqlite::Result<u64> {
    let (mut count, mut bytes) = held;
    let mut dropped: i64 = 0;
    while count > quota.messages || bytes > quota.bytes {
        let sql = "DELETE FROM envelope WHERE id = (SELECT id FROM envelope WHERE mailbox = ?1 ORDER BY seq LIMIT 1) \
                   RETURNING size, payload";
        let gone: Option<(i64, Option<i64>)> = db
            .prepare_cached(sql)?
            .query_row([mailbox.0], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((size, payload)) = gone else { break };
        release(db, payload, 1)?;
        count -= 1;
        bytes -= size;
        dropped += 1;
    }
    if dropped > 0 {
        let sql =
            "UPDATE mailbox SET count = ?2, bytes = ?3, dropped = dropped + ?4 WHERE device = ?1";
        db.prepare_cached(sql)?.execute(params![mailbox.0, count, bytes, dropped])?;
    }
    Ok(dropped.unsigned_abs())
}

pub(super) fn read_after(
    db: &Connection,
    mailbox: MailboxId,
    cursor: i64,
    limit: ReadLimit,
    now_ms: i64,
) -> rusqlite::Result<Backlog> {
    let state: Option<(i64, i64)> = db
        .prepare_cached("SELECT next_seq - 1, dropped FROM mailbox WHERE device = ?1")?
        .query_row([mailbox.0], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (end, dropped) = state.unwrap_or_default();
    let mut backlog =
        Backlog { envelopes: Vec::new(), covers: end, end, dropped: dropped.unsigned_abs() };
    let sql = "SELECT e.seq, e.received_ms, e.size, e.body, p.body FROM envelope e LEFT JOIN payload p ON p.id = e.payload \
         WHERE e.mailbox = ?1 AND e.seq > ?2 AND e.expires_ms > ?3 ORDER BY e.seq";
    let mut query = db.prepare_cached(sql)?;
    let mut rows = query.query(params![mailbox.0, cursor, now_ms])?;
    let mut room = limit.bytes;
    while let Some(row) = rows.next()? {
        let size = usize::try_from(row.get::<_, i64>(2)?).unwrap_or(usize::MAX);
        if backlog.envelopes.len() == limit.messages
            || (size > room && !backlog.envelopes.is_empty())
        {
            backlog.covers = backlog.envelopes.last().map_or(cursor, |last| last.seq);
            break;
        }
        room = room.saturating_sub(size);
        let content = Bytes::copy_from_slice(row.get_ref(3)?.as_blob()?);
        let shared = row.get_ref(4)?.as_blob_or_null()?.map(Bytes::copy_from_slice);
        backlog.envelopes.push(StoredEnvelope {
            seq: row.get(0)?,
            received_ms: row.get(1)?,
            content,
            shared: shared.unwrap_or_default(),
        });
    }
    Ok(backlog)
}

pub(super) fn states(
    db: &Connection,
    mailboxes: &[MailboxId],
) -> rusqlite::Result<Vec<MailboxState>> {
    let mut query = db.prepare_cached("SELECT next_seq - 1 FROM mailbox WHERE device = ?1")?;
    let mut states = Vec::with_capacity(mailboxes.len());
    for mailbox in mailboxes {
        let end = query.query_row([mailbox.0], |row| row.get(0)).optional()?;
        states.extend(end.map(|end| MailboxState { mailbox: *mailbox, end, epoch: 0 }));
    }
    Ok(states)
}

/// Deletes these places, which are in order. Devices mostly acknowledge what lies side by side: that goes in one stroke.
pub(super) fn delete(db: &Connection, mailbox: MailboxId, seqs: &[i64]) -> rusqlite::Result<()> {
    let (mut count, mut bytes) = (0, 0);
    for run in seqs.chunk_by(|seq, next| seq.checked_add(1) == Some(*next)) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        let place = params![mailbox.0, first, last];
        let sql = "SELECT count(*), coalesce(sum(size), 0), count(payload) FROM envelope \
                   WHERE mailbox = ?1 AND seq BETWEEN ?2 AND ?3";
        let (found, size, shared): (i64, i64, i64) = db
            .prepare_cached(sql)?
            .query_row(place, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        if shared > 0 {
            release_all(db, place)?;
        }
        let sql = "DELETE FROM envelope WHERE mailbox = ?1 AND seq BETWEEN ?2 AND ?3";
        db.prepare_cached(sql)?.execute(place)?;
        count += found;
        bytes += size;
    }
    forget(db, mailbox, (count, bytes), 0)
}

/// All that is in a mailbox goes, and the mailbox.
pub(super) fn remove(db: &Connection, mailbox: MailboxId) -> rusqlite::Result<()> {
    release_all(db, params![mailbox.0, 0, i64::MAX])?;
    db.prepare_cached("DELETE FROM envelope WHERE mailbox = ?1")?.execute([mailbox.0])?;
    db.prepare_cached("DELETE FROM mailbox WHERE device = ?1")?.execute([mailbox.0]).map(drop)
}

/// Gives up the payloads of the envelopes in this part of a mailbox.
fn release_all(db: &Connection, place: &[&dyn rusqlite::ToSql]) -> rusqlite::Result<()> {
    let sql = "SELECT payload, count(*) FROM envelope \
               WHERE mailbox = ?1 AND seq BETWEEN ?2 AND ?3 AND payload IS NOT NULL GROUP BY payload";
    let mut query = db.prepare_cached(sql)?;
    let rows = query.query_map(place, |row| Ok((row.get(0)?, row.get(1)?)))?;
    for (payload, count) in rows.collect::<rusqlite::Result<Vec<_>>>()? {
        release(db, payload, count)?;
    }
    Ok(())
}

fn forget(
    db: &Connection,
    mailbox: MailboxId,
    (count, bytes): (i64, i64),
    dropped: i64,
) -> rusqlite::Result<()> {
    if count > 0 {
        let sql = "UPDATE mailbox SET count = count - ?2, bytes = bytes - ?3, dropped = dropped + ?4 WHERE device = ?1";
        db.prepare_cached(sql)?.execute(params![mailbox.0, count, bytes, dropped])?;
    }
    Ok(())
}

pub(super) fn told_dropped(
    db: &Connection,
    mailbox: MailboxId,
    count: u64,
) -> rusqlite::Result<()> {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    db.prepare_cached("UPDATE mailbox SET dropped = max(0, dropped - ?2) WHERE device = ?1")?
        .execute(params![mailbox.0, count])?;
    Ok(())
}

/// Takes a slice of what has expired away.
pub(super) fn purge(db: &Connection, walk: &Walk, now_ms: i64) -> rusqlite::Result<u64> {
    let expired = expired(db, walk, now_ms)?;
    for row in &expired {
        db.prepare_cached("DELETE FROM envelope WHERE id = ?1")?.execute([row.id])?;
        release(db, row.payload, 1)?;
        forget(db, row.mailbox, (1, row.size), i64::from(row.life == Life::Full))?;
    }
    Ok(expired.len() as u64)
}

struct Expired {
    id: i64,
    mailbox: MailboxId,
    size: i64,
    payload: Option<i64>,
    life: Life,
    expires_ms: i64,
}

/// A slice of what has expired: of those of a short life, or else of the oldest. Behind one of these that is still good all are,
/// or are of a short life, but where envelopes were kept for longer before, or the clock was wrong: the walk comes to those.
fn expired(db: &Connection, walk: &Walk, now_ms: i64) -> rusqlite::Result<Vec<Expired>> {
    let sql = "SELECT id, mailbox, size, payload, short, expires_ms FROM envelope \
               WHERE short IS NOT NULL AND expires_ms <= ?1 ORDER BY expires_ms LIMIT ?2";
    let short = expiring(db, sql, params![now_ms, SLICE])?;
    if !short.is_empty() {
        return Ok(short);
    }
    let sql = "SELECT id, mailbox, size, payload, short, expires_ms FROM envelope \
               WHERE id > ?1 ORDER BY id LIMIT ?2";
    let mut oldest = expiring(db, sql, params![0, SLICE])?;
    let over = |row: &Expired| row.expires_ms <= now_ms;
    oldest.truncate(oldest.iter().take_while(|row| over(row)).count());
    if !oldest.is_empty() {
        return Ok(oldest);
    }
    let mut next = expiring(db, sql, params![walk.after(), WALK])?;
    walk.came_to(next.last().map(|row| row.id));
    next.retain(over);
    Ok(next)
}

fn expiring(
    db: &Connection,
    sql: &str,
    values: &[&dyn rusqlite::ToSql],
) -> rusqlite::Result<Vec<Expired>> {
    let mut query = db.prepare_cached(sql)?;
    let rows = query.query_map(values, |row| {
        let short: Option<i64> = row.get(4)?;
        Ok(Expired {
            id: row.get(0)?,
            mailbox: MailboxId(row.get(1)?),
            size: row.get(2)?,
            payload: row.get(3)?,
            life: if short.is_some() { Life::Short } else { Life::Full },
            expires_ms: row.get(5)?,
        })
    })?;
    rows.collect()
}

/// A slice is never longer than `isize::MAX`.
fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
