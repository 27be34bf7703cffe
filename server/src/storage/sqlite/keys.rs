//! Prekeys: an upload is stored whole or not at all, ids only grow, a one-time prekey leaves exactly once.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::storage::{
    Fetch, Keep, KemUse, KeyCollision, KeyKind, KeySet, KeyState, MailboxId, PreKeyRow, PutKeys,
    Taken, TakenDevice, Waiting,
};

/// Answers that are forgotten at once.
const SLICE: i64 = 500;

impl KeyKind {
    fn number(self) -> i64 {
        match self {
            Self::Curve => 1,
            Self::Kem => 2,
        }
    }
}

/// About what an upload writes, in bytes.
pub(super) fn weight(keys: &KeySet) -> usize {
    let fixed = keys.signed.iter().chain(&keys.last_resort);
    fixed
        .chain(&keys.one_time)
        .chain(&keys.one_time_kem)
        .map(|key| key.key.len() + key.signature.len() + 64)
        .sum()
}

/// A registration's keys take the place of all that the device had.
pub(super) fn replace_all(
    db: &Connection,
    device: MailboxId,
    keys: &KeySet,
) -> rusqlite::Result<()> {
    for table in ["prekey_once", "prekey_fixed", "prekey_state"] {
        db.prepare_cached(&format!("DELETE FROM {table} WHERE device = ?1"))?
            .execute([device.0])?;
    }
    for kind in [KeyKind::Curve, KeyKind::Kem] {
        db.prepare_cached("INSERT INTO prekey_state (device, kind) VALUES (?1, ?2)")?
            .execute(params![device.0, kind.number()])?;
    }
    store(db, device, keys)
}

pub(super) fn put(db: &Connection, device: MailboxId, keys: &KeySet) -> rusqlite::Result<PutKeys> {
    let last: Option<[u8; 32]> = db
        .prepare_cached("SELECT last_upload FROM device WHERE id = ?1")?
        .query_row([device.0], |row| row.get(0))
        .optional()?;
    let Some(last) = last else { return Ok(PutKeys::NoDevice) };
    if last != keys.digest {
        let news = match news(db, device, keys)? {
            Ok(news) => news,
            Err(id) => {
                let known = state(db, device)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
                return Ok(PutKeys::Collision(KeyCollision { id, known: known.into() }));
            }
        };
        for (kind, list) in [(KeyKind::Curve, &news.one_time), (KeyKind::Kem, &news.one_time_kem)] {
            let waiting = match keys.waiting {
                Waiting::Stay => counts(db, device, kind)?.remaining,
                Waiting::Go => 0,
            };
            let waiting = usize::try_from(waiting).unwrap_or(usize::MAX);
            if !list.is_empty() && waiting.saturating_add(list.len()) > keys.max_waiting as usize {
                return Ok(PutKeys::TooMany);
            }
        }
        store(db, device, &news)?;
    }
    state(db, device)?.map(PutKeys::Stored).ok_or(rusqlite::Error::QueryReturnedNoRows)
}

/// The part of an upload that the device does not have yet, or an id that was used for other bytes.
fn news(
    db: &Connection,
    device: MailboxId,
    keys: &KeySet,
) -> rusqlite::Result<Result<KeySet, u32>> {
    let mut news = keys.clone();
    for (kind, list) in
        [(KeyKind::Curve, &mut news.one_time), (KeyKind::Kem, &mut news.one_time_kem)]
    {
        let high_water = counts(db, device, kind)?.high_water;
        for key in list.iter().filter(|key| key.id <= high_water) {
            let stays = keys.waiting == Waiting::Stay;
            if !stays || one_time(db, device, kind, key.id)?.as_ref() != Some(key) {
                return Ok(Err(key.id));
            }
        }
        list.retain(|key| key.id > high_water);
    }
    for (kind, key) in [(KeyKind::Curve, &keys.signed), (KeyKind::Kem, &keys.last_resort)] {
        let (Some(new), Some(known)) = (key, fixed(db, device, kind)?) else { continue };
        if new.id <= known.id && *new != known {
            return Ok(Err(new.id));
        }
    }
    Ok(Ok(news))
}

fn store(db: &Connection, device: MailboxId, keys: &KeySet) -> rusqlite::Result<()> {
    for (kind, key) in [(KeyKind::Curve, &keys.signed), (KeyKind::Kem, &keys.last_resort)] {
        let Some(key) = key else { continue };
        let sql = "INSERT INTO prekey_fixed (device, kind, id, key, signature) VALUES (?1, ?2, ?3, ?4, ?5) \
                   ON CONFLICT (device, kind) DO UPDATE SET id = ?3, key = ?4, signature = ?5";
        db.prepare_cached(sql)?.execute(params![
            device.0,
            kind.number(),
            key.id,
            &key.key[..],
            &key.signature[..]
        ])?;
    }
    if keys.waiting == Waiting::Go {
        db.prepare_cached("DELETE FROM prekey_once WHERE device = ?1")?.execute([device.0])?;
        db.prepare_cached("UPDATE prekey_state SET remaining = 0 WHERE device = ?1")?
            .execute([device.0])?;
    }
    for (kind, list) in [(KeyKind::Curve, &keys.one_time), (KeyKind::Kem, &keys.one_time_kem)] {
        let Some(last) = list.last() else { continue };
        let sql = "INSERT INTO prekey_once (device, kind, id, key, signature) VALUES (?1, ?2, ?3, ?4, ?5)";
        let mut insert = db.prepare_cached(sql)?;
        for key in list {
            insert.execute(params![
                device.0,
                kind.number(),
                key.id,
                &key.key[..],
                &key.signature[..]
            ])?;
        }
        let sql = "UPDATE prekey_state SET high_water = ?3, remaining = remaining + ?4 WHERE device = ?1 AND kind = ?2";
        db.prepare_cached(sql)?.execute(params![device.0, kind.number(), last.id, count(list)])?;
    }
    db.prepare_cached("UPDATE device SET last_upload = ?2 WHERE id = ?1")?
        .execute(params![device.0, keys.digest])?;
    Ok(())
}

pub(super) fn state(db: &Connection, device: MailboxId) -> rusqlite::Result<Option<KeyState>> {
    let (signed, last_resort) =
        (fixed(db, device, KeyKind::Curve)?, fixed(db, device, KeyKind::Kem)?);
    let (Some(signed), Some(last_resort)) = (signed, last_resort) else { return Ok(None) };
    let (curve, kem) = (counts(db, device, KeyKind::Curve)?, counts(db, device, KeyKind::Kem)?);
    Ok(Some(KeyState {
        one_time: curve.remaining,
        one_time_kem: kem.remaining,
        high_water: curve.high_water,
        high_water_kem: kem.high_water,
        last_resort_uses: kem.last_resort_uses,
        signed,
        last_resort,
    }))
}

pub(super) fn take(db: &Connection, fetch: &Fetch) -> rusqlite::Result<Taken> {
    if let Some(keep) = &fetch.keep
        && let Some(answer) = kept(db, fetch.account_row, keep)?
    {
        return Ok(Taken::Before(answer));
    }
    let sql = "SELECT id, device, registration_id FROM device WHERE account = ?1 AND (?2 IS NULL OR device = ?2) ORDER BY device";
    let mut devices = db.prepare_cached(sql)?;
    let devices = devices.query_map(params![fetch.account_row, fetch.device], |row| {
        Ok((MailboxId(row.get(0)?), row.get(1)?, row.get(2)?))
    })?;
    let taken = devices.map(|device| take_device(db, device?, fetch));
    let taken = taken.collect::<rusqlite::Result<Vec<_>>>()?;
    if let Some(keep) = &fetch.keep
        && !taken.is_empty()
    {
        let sql =
            "INSERT INTO taken_answer (account, request, at_ms, answer) VALUES (?1, ?2, ?3, ?4)";
        let (account, answer) = (fetch.account_row, (keep.answer)(&taken));
        let values = params![account, keep.request, fetch.now_ms, &answer[..]];
        db.prepare_cached(sql)?.execute(values)?;
    }
    Ok(Taken::Now(taken))
}

fn kept(db: &Connection, account: i64, keep: &Keep) -> rusqlite::Result<Option<Bytes>> {
    let sql = "SELECT answer FROM taken_answer WHERE account = ?1 AND request = ?2";
    db.prepare_cached(sql)?.query_row(params![account, keep.request], |row| blob(row, 0)).optional()
}

/// The devices of the account are others now: what was answered about them is not to be answered again.
pub(super) fn forget_answers(db: &Connection, account: i64) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM taken_answer WHERE account = ?1")?.execute([account]).map(drop)
}

pub(super) fn purge_answers(db: &Connection, before_ms: i64) -> rusqlite::Result<u64> {
    let sql = "DELETE FROM taken_answer WHERE rowid IN \
               (SELECT rowid FROM taken_answer WHERE at_ms < ?1 ORDER BY at_ms LIMIT ?2)";
    Ok(db.prepare_cached(sql)?.execute([before_ms, SLICE])? as u64)
}

fn take_device(
    db: &Connection,
    (mailbox, device, registration_id): (MailboxId, u8, u16),
    fetch: &Fetch,
) -> rusqlite::Result<TakenDevice> {
    let full_ms = full(db, mailbox)?;
    let spent = fetch.pace.spend(full_ms, fetch.now_ms);
    let taken = match spent {
        Some(_) => (take_one(db, mailbox, KeyKind::Curve)?, take_one(db, mailbox, KeyKind::Kem)?),
        None => (None, None),
    };
    if let Some(full_ms) = spent
        && (taken.0.is_some() || taken.1.is_some())
    {
        let sql = "UPDATE prekey_state SET full_ms = ?3 WHERE device = ?1 AND kind = ?2";
        let values = params![mailbox.0, KeyKind::Curve.number(), full_ms];
        db.prepare_cached(sql)?.execute(values)?;
    }
    let (kem, kem_use) = match taken.1 {
        Some(kem) => (kem, KemUse::OneTime),
        None => (use_last_resort(db, mailbox)?, KemUse::LastResort),
    };
    let signed = fixed(db, mailbox, KeyKind::Curve)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    let left = (
        counts(db, mailbox, KeyKind::Curve)?.remaining,
        counts(db, mailbox, KeyKind::Kem)?.remaining,
    );
    Ok(TakenDevice {
        mailbox,
        device,
        registration_id,
        signed,
        one_time: taken.0,
        kem,
        kem_use,
        left,
    })
}

/// When the device's budget is full again.
fn full(db: &Connection, device: MailboxId) -> rusqlite::Result<i64> {
    let sql = "SELECT full_ms FROM prekey_state WHERE device = ?1 AND kind = ?2";
    db.prepare_cached(sql)?.query_row(params![device.0, KeyKind::Curve.number()], |row| row.get(0))
}

/// The lowest id leaves the table for good.
fn take_one(
    db: &Connection,
    device: MailboxId,
    kind: KeyKind,
) -> rusqlite::Result<Option<PreKeyRow>> {
    let sql = "DELETE FROM prekey_once WHERE row = (SELECT row FROM prekey_once WHERE device = ?1 AND kind = ?2 \
               ORDER BY id LIMIT 1) RETURNING id, key, signature";
    let taken =
        db.prepare_cached(sql)?.query_row(params![device.0, kind.number()], prekey).optional()?;
    if taken.is_some() {
        let sql =
            "UPDATE prekey_state SET remaining = remaining - 1 WHERE device = ?1 AND kind = ?2";
        db.prepare_cached(sql)?.execute(params![device.0, kind.number()])?;
    }
    Ok(taken)
}

fn use_last_resort(db: &Connection, device: MailboxId) -> rusqlite::Result<PreKeyRow> {
    let sql = "UPDATE prekey_state SET last_resort_uses = last_resort_uses + 1 WHERE device = ?1 AND kind = ?2";
    db.prepare_cached(sql)?.execute(params![device.0, KeyKind::Kem.number()])?;
    fixed(db, device, KeyKind::Kem)?.ok_or(rusqlite::Error::QueryReturnedNoRows)
}

fn fixed(db: &Connection, device: MailboxId, kind: KeyKind) -> rusqlite::Result<Option<PreKeyRow>> {
    db.prepare_cached(
        "SELECT id, key, signature FROM prekey_fixed WHERE device = ?1 AND kind = ?2",
    )?
    .query_row(params![device.0, kind.number()], prekey)
    .optional()
}

fn one_time(
    db: &Connection,
    device: MailboxId,
    kind: KeyKind,
    id: u32,
) -> rusqlite::Result<Option<PreKeyRow>> {
    db.prepare_cached(
        "SELECT id, key, signature FROM prekey_once WHERE device = ?1 AND kind = ?2 AND id = ?3",
    )?
    .query_row(params![device.0, kind.number(), id], prekey)
    .optional()
}

struct Counts {
    high_water: u32,
    remaining: u32,
    last_resort_uses: u64,
}

fn counts(db: &Connection, device: MailboxId, kind: KeyKind) -> rusqlite::Result<Counts> {
    let sql = "SELECT high_water, remaining, last_resort_uses FROM prekey_state WHERE device = ?1 AND kind = ?2";
    db.prepare_cached(sql)?.query_row(params![device.0, kind.number()], |row| {
        Ok(Counts {
            high_water: row.get(0)?,
            remaining: row.get(1)?,
            last_resort_uses: row.get::<_, i64>(2)?.unsigned_abs(),
        })
    })
}

fn prekey(row: &Row<'_>) -> rusqlite::Result<PreKeyRow> {
    Ok(PreKeyRow { id: row.get(0)?, key: blob(row, 1)?, signature: blob(row, 2)? })
}

fn blob(row: &Row<'_>, column: usize) -> rusqlite::Result<Bytes> {
    Ok(Bytes::from(row.get::<_, Vec<u8>>(column)?))
}

fn count(list: &[PreKeyRow]) -> i64 {
    i64::try_from(list.len()).unwrap_or(i64::MAX)
}
