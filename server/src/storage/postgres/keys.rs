//! Prekeys. Whoever uploads or takes locks the device's two state rows first, in order: what follows is as if there
//! were one writer for each device.

use bytes::Bytes;
use deadpool_postgres::{Object, Transaction};
use tokio_postgres::Row;
use uuid::Uuid;

use super::row::{blob, small};
use crate::storage::{
    Fetch, Keep, KemUse, KeyCollision, KeyKind, KeySet, KeyState, MailboxId, PreKeyRow, PutKeys,
    StoreError, Taken, TakenDevice, Waiting,
};

/// Answers that are forgotten at once.
const SLICE: i64 = 500;

const KINDS: [KeyKind; 2] = [KeyKind::Curve, KeyKind::Kem];

fn number(kind: KeyKind) -> i16 {
    match kind {
        KeyKind::Curve => 1,
        KeyKind::Kem => 2,
    }
}

/// A registration's keys take the place of all that the device had.
pub(super) async fn replace_all(
    db: &Transaction<'_>,
    device: MailboxId,
    keys: &KeySet,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO prekey_state (device, kind) VALUES ($1, 1), ($1, 2) \
               ON CONFLICT (device, kind) DO UPDATE SET high_water = 0, remaining = 0, last_resort_uses = 0";
    db.execute(&db.prepare_cached(sql).await?, &[&device.0]).await?;
    for table in ["prekey_once", "prekey_fixed"] {
        let sql = format!("DELETE FROM {table} WHERE device = $1");
        db.execute(&db.prepare_cached(&sql).await?, &[&device.0]).await?;
    }
    store(db, device, keys).await
}

pub(super) async fn put(
    db: &mut Object,
    device: MailboxId,
    keys: &KeySet,
) -> Result<PutKeys, StoreError> {
    let changing = db.transaction().await?;
    // The device before its state, as a registration does.
    let sql = "SELECT last_upload FROM device WHERE id = $1 FOR NO KEY UPDATE";
    let last = changing.query_opt(&changing.prepare_cached(sql).await?, &[&device.0]).await?;
    let Some(last) = last else { return Ok(PutKeys::NoDevice) };
    let counts = lock(&changing, device).await?;
    if last.try_get::<_, &[u8]>(0)? != keys.digest {
        let news = match news(&changing, device, keys, &counts).await? {
            Ok(news) => news,
            Err(id) => {
                let known = read_state(&changing, device).await?.ok_or(StoreError::Damaged)?;
                return Ok(PutKeys::Collision(KeyCollision { id, known: known.into() }));
            }
        };
        for (counts, list) in counts.iter().zip([&news.one_time, &news.one_time_kem]) {
            let waiting = match keys.waiting {
                Waiting::Stay => usize::try_from(counts.remaining).unwrap_or(usize::MAX),
                Waiting::Go => 0,
            };
            if !list.is_empty() && waiting.saturating_add(list.len()) > keys.max_waiting as usize {
                return Ok(PutKeys::TooMany);
            }
        }
        store(&changing, device, &news).await?;
    }
    let state = read_state(&changing, device).await?.ok_or(StoreError::Damaged)?;
    changing.commit().await?;
    Ok(PutKeys::Stored(state))
}

/// The part of an upload that the device does not have yet, or an id that was used for other bytes.
async fn news(
    db: &Transaction<'_>,
    device: MailboxId,
    keys: &KeySet,
    counts: &[Counts; 2],
) -> Result<Result<KeySet, u32>, StoreError> {
    let mut news = keys.clone();
    let lists = [&mut news.one_time, &mut news.one_time_kem];
    for ((kind, counts), list) in KINDS.into_iter().zip(counts).zip(lists) {
        for key in list.iter().filter(|key| key.id <= counts.high_water) {
            let stays = keys.waiting == Waiting::Stay;
            if !stays || one_time(db, device, kind, key.id).await?.as_ref() != Some(key) {
                return Ok(Err(key.id));
            }
        }
        list.retain(|key| key.id > counts.high_water);
    }
    let known = fixed(db, &[device.0]).await?;
    for (kind, key) in KINDS.into_iter().zip([&keys.signed, &keys.last_resort]) {
        let known = known.iter().find(|known| known.kind == number(kind)).map(|known| &known.key);
        let (Some(new), Some(known)) = (key, known) else { continue };
        if new.id <= known.id && new != known {
            return Ok(Err(new.id));
        }
    }
    Ok(Ok(news))
}

async fn store(db: &Transaction<'_>, device: MailboxId, keys: &KeySet) -> Result<(), StoreError> {
    for (kind, key) in KINDS.into_iter().zip([&keys.signed, &keys.last_resort]) {
        let Some(key) = key else { continue };
        let sql = "INSERT INTO prekey_fixed (device, kind, id, key, signature) VALUES ($1, $2, $3, $4, $5) \
                   ON CONFLICT (device, kind) DO UPDATE SET id = $3, key = $4, signature = $5";
        let insert = db.prepare_cached(sql).await?;
        let (id, bytes, signature) = (i64::from(key.id), &key.key[..], &key.signature[..]);
        db.execute(&insert, &[&device.0, &number(kind), &id, &bytes, &signature]).await?;
    }
    if keys.waiting == Waiting::Go {
        for sql in [
            "DELETE FROM prekey_once WHERE device = $1",
            "UPDATE prekey_state SET remaining = 0 WHERE device = $1",
        ] {
            db.execute(&db.prepare_cached(sql).await?, &[&device.0]).await?;
        }
    }
    for (kind, list) in KINDS.into_iter().zip([&keys.one_time, &keys.one_time_kem]) {
        let Some(last) = list.last() else { continue };
        let ids: Vec<i64> = list.iter().map(|key| i64::from(key.id)).collect();
        let bytes: Vec<&[u8]> = list.iter().map(|key| &key.key[..]).collect();
        let signatures: Vec<&[u8]> = list.iter().map(|key| &key.signature[..]).collect();
        let sql = "INSERT INTO prekey_once (device, kind, id, key, signature) \
                   SELECT $1, $2, * FROM unnest($3::bigint[], $4::bytea[], $5::bytea[])";
        let insert = db.prepare_cached(sql).await?;
        db.execute(&insert, &[&device.0, &number(kind), &ids, &bytes, &signatures]).await?;
        let sql = "UPDATE prekey_state SET high_water = $3, remaining = remaining + $4 WHERE device = $1 AND kind = $2";
        let update = db.prepare_cached(sql).await?;
        let count = i64::try_from(list.len()).unwrap_or(i64::MAX);
        db.execute(&update, &[&device.0, &number(kind), &i64::from(last.id), &count]).await?;
    }
    let update = db.prepare_cached("UPDATE device SET last_upload = $2 WHERE id = $1").await?;
    db.execute(&update, &[&device.0, &&keys.digest[..]]).await?;
    Ok(())
}

pub(super) async fn state(
    db: &mut Object,
    device: MailboxId,
) -> Result<Option<KeyState>, StoreError> {
    // One picture of both tables.
    let reading = db
        .build_transaction()
        .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    let state = read_state(&reading, device).await?;
    reading.commit().await?;
    Ok(state)
}

async fn read_state(
    db: &Transaction<'_>,
    device: MailboxId,
) -> Result<Option<KeyState>, StoreError> {
    let sql = "SELECT high_water, remaining, last_resort_uses FROM prekey_state WHERE device = $1 ORDER BY kind";
    let rows = db.query(&db.prepare_cached(sql).await?, &[&device.0]).await?;
    let [curve, kem] = &rows[..] else { return Ok(None) };
    let (curve, kem) = (counts(curve, 0)?, counts(kem, 0)?);
    let mut fixed = fixed(db, &[device.0]).await?;
    let mut fixed = |kind| {
        let place = fixed.iter().position(|fixed| fixed.kind == number(kind));
        place.map(|place| fixed.swap_remove(place).key).ok_or(StoreError::Damaged)
    };
    Ok(Some(KeyState {
        one_time: curve.remaining,
        one_time_kem: kem.remaining,
        high_water: curve.high_water,
        high_water_kem: kem.high_water,
        last_resort_uses: kem.last_resort_uses,
        signed: fixed(KeyKind::Curve)?,
        last_resort: fixed(KeyKind::Kem)?,
    }))
}

pub(super) async fn take(db: &mut Object, fetch: &Fetch) -> Result<Taken, StoreError> {
    if let Some(keep) = &fetch.keep
        && let Some(answer) = kept(db, fetch.account_row, keep).await?
    {
        return Ok(Taken::Before(answer));
    }
    let changing = db.transaction().await?;
    let devices = lock_account(&changing, fetch).await?;
    if devices.is_empty() {
        return Ok(Taken::Now(Vec::new()));
    }
    let open = devices.iter().filter(|device| device.spent.is_some());
    let open: Vec<i64> = open.map(|device| device.mailbox.0).collect();
    let mut once = if open.is_empty() { Vec::new() } else { take_lowest(&changing, &open).await? };
    let ids: Vec<i64> = devices.iter().map(|device| device.mailbox.0).collect();
    let mut fixed = fixed(&changing, &ids).await?;
    let mut taken = Vec::with_capacity(devices.len());
    for device in &devices {
        taken.push(bundle(device, &mut once, &mut fixed)?);
    }
    note_taken(&changing, &devices, &taken).await?;
    if let Some(keep) = &fetch.keep {
        // The same request at the same time ends here, and finds this answer when it comes again.
        let sql =
            "INSERT INTO taken_answer (account, request, at_ms, answer) VALUES ($1, $2, $3, $4)";
        let (request, answer) = (Uuid::from_bytes(keep.request), (keep.answer)(&taken));
        let insert = changing.prepare_cached(sql).await?;
        let (account, now_ms) = (fetch.account_row, fetch.now_ms);
        changing.execute(&insert, &[&account, &request, &now_ms, &&answer[..]]).await?;
    }
    changing.commit().await?;
    Ok(Taken::Now(taken))
}

async fn kept(db: &Object, account: i64, keep: &Keep) -> Result<Option<Bytes>, StoreError> {
    let sql = "SELECT answer FROM taken_answer WHERE account = $1 AND request = $2";
    let query = db.prepare_cached(sql).await?;
    let row = db.query_opt(&query, &[&account, &Uuid::from_bytes(keep.request)]).await?;
    row.map(|row| blob(&row, 0)).transpose()
}

/// The devices of the account are others now: what was answered about them is not to be answered again.
pub(super) async fn forget_answers(db: &Transaction<'_>, account: i64) -> Result<(), StoreError> {
    let delete = db.prepare_cached("DELETE FROM taken_answer WHERE account = $1").await?;
    db.execute(&delete, &[&account]).await?;
    Ok(())
}

pub(super) async fn purge_answers(db: &Object, before_ms: i64) -> Result<u64, StoreError> {
    let sql = "DELETE FROM taken_answer WHERE ctid = ANY(ARRAY(SELECT ctid FROM taken_answer WHERE at_ms < $1 \
               ORDER BY at_ms LIMIT $2 FOR UPDATE SKIP LOCKED))";
    Ok(db.execute(&db.prepare_cached(sql).await?, &[&before_ms, &SLICE]).await?)
}

/// What a device gives away, out of what was taken of all.
fn bundle(
    device: &Locked,
    once: &mut Vec<Of>,
    fixed: &mut Vec<Of>,
) -> Result<TakenDevice, StoreError> {
    let pick = |keys: &mut Vec<Of>, kind| {
        let of = |key: &Of| key.device == device.mailbox.0 && key.kind == number(kind);
        let place = keys.iter().position(of);
        place.map(|place| keys.swap_remove(place).key)
    };
    let one_time = pick(once, KeyKind::Curve);
    let kem = pick(once, KeyKind::Kem);
    let kem_use = if kem.is_some() { KemUse::OneTime } else { KemUse::LastResort };
    let left = |taken: bool, counts: &Counts| counts.remaining.saturating_sub(taken.into());
    let [curve_counts, kem_counts] = &device.counts;
    Ok(TakenDevice {
        mailbox: device.mailbox,
        device: device.device,
        registration_id: device.registration_id,
        signed: pick(fixed, KeyKind::Curve).ok_or(StoreError::Damaged)?,
        left: (left(one_time.is_some(), curve_counts), left(kem.is_some(), kem_counts)),
        one_time,
        kem: kem.or_else(|| pick(fixed, KeyKind::Kem)).ok_or(StoreError::Damaged)?,
        kem_use,
    })
}

struct Locked {
    mailbox: MailboxId,
    device: u8,
    registration_id: u16,
    counts: [Counts; 2],
    /// When its budget is full again after this; none if it is used up.
    spent: Option<i64>,
}

/// The wanted devices of the account; their state rows stay locked.
async fn lock_account(db: &Transaction<'_>, fetch: &Fetch) -> Result<Vec<Locked>, StoreError> {
    let sql = "SELECT d.id, d.device, d.registration_id, s.high_water, s.remaining, s.last_resort_uses, s.full_ms \
               FROM device d JOIN prekey_state s ON s.device = d.id \
               WHERE d.account = $1 AND ($2::smallint IS NULL OR d.device = $2) ORDER BY d.device, s.kind FOR UPDATE OF s";
    let query = db.prepare_cached(sql).await?;
    let rows = db.query(&query, &[&fetch.account_row, &fetch.device.map(i16::from)]).await?;
    let pairs = rows.chunks_exact(2).map(|pair| {
        let [curve, kem] = pair else { return Err(StoreError::Damaged) };
        Ok(Locked {
            mailbox: MailboxId(curve.try_get(0)?),
            device: small(curve.try_get::<_, i16>(1)?)?,
            registration_id: small(curve.try_get::<_, i32>(2)?)?,
            counts: [counts(curve, 3)?, counts(kem, 3)?],
            spent: fetch.pace.spend(curve.try_get(6)?, fetch.now_ms),
        })
    });
    pairs.collect()
}

/// The lowest id of each device and kind leaves the table for good.
async fn take_lowest(db: &Transaction<'_>, devices: &[i64]) -> Result<Vec<Of>, StoreError> {
    let sql = "DELETE FROM prekey_once WHERE ctid = ANY(ARRAY(SELECT low.at FROM unnest($1::bigint[]) d (device) \
               CROSS JOIN (VALUES (1), (2)) k (kind) CROSS JOIN LATERAL (SELECT p.ctid AS at FROM prekey_once p \
               WHERE p.device = d.device AND p.kind = k.kind ORDER BY p.id LIMIT 1) low)) \
               RETURNING device, kind, id, key, signature";
    of_rows(db.query(&db.prepare_cached(sql).await?, &[&devices]).await?)
}

async fn note_taken(
    db: &Transaction<'_>,
    devices: &[Locked],
    taken: &[TakenDevice],
) -> Result<(), StoreError> {
    let (mut numbers, mut kinds) = (vec![], vec![]);
    let (mut ones, mut uses, mut fulls) = (vec![], vec![], vec![]);
    for (device, taken) in devices.iter().zip(taken) {
        let last_resort = taken.kem_use == KemUse::LastResort;
        let any = taken.one_time.is_some() || !last_resort;
        let full_ms = device.spent.filter(|_| any);
        for (kind, one, used, full_ms) in [
            (KeyKind::Curve, taken.one_time.is_some(), false, full_ms),
            (KeyKind::Kem, !last_resort, last_resort, None),
        ] {
            if one || used || full_ms.is_some() {
                numbers.push(device.mailbox.0);
                kinds.push(number(kind));
                ones.push(i64::from(one));
                uses.push(i64::from(used));
                fulls.push(full_ms);
            }
        }
    }
    let sql = "UPDATE prekey_state s SET remaining = s.remaining - t.one, last_resort_uses = s.last_resort_uses + t.used, \
               full_ms = coalesce(t.full_ms, s.full_ms) \
               FROM unnest($1::bigint[], $2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[]) t (device, kind, one, used, full_ms) \
               WHERE s.device = t.device AND s.kind = t.kind";
    let update = db.prepare_cached(sql).await?;
    db.execute(&update, &[&numbers, &kinds, &ones, &uses, &fulls]).await?;
    Ok(())
}

struct Counts {
    high_water: u32,
    remaining: u32,
    last_resort_uses: u64,
}

fn counts(row: &Row, first: usize) -> Result<Counts, StoreError> {
    Ok(Counts {
        high_water: small(row.try_get::<_, i64>(first)?)?,
        remaining: small(row.try_get::<_, i64>(first + 1)?)?,
        last_resort_uses: small(row.try_get::<_, i64>(first + 2)?)?,
    })
}

/// The counts of both kinds; the rows stay locked.
async fn lock(db: &Transaction<'_>, device: MailboxId) -> Result<[Counts; 2], StoreError> {
    let sql = "SELECT high_water, remaining, last_resort_uses FROM prekey_state WHERE device = $1 ORDER BY kind FOR UPDATE";
    let rows = db.query(&db.prepare_cached(sql).await?, &[&device.0]).await?;
    let [curve, kem] = &rows[..] else { return Err(StoreError::Damaged) };
    Ok([counts(curve, 0)?, counts(kem, 0)?])
}

/// A key and whose it is.
struct Of {
    device: i64,
    kind: i16,
    key: PreKeyRow,
}

async fn fixed(db: &Transaction<'_>, devices: &[i64]) -> Result<Vec<Of>, StoreError> {
    let sql = "SELECT device, kind, id, key, signature FROM prekey_fixed WHERE device = ANY($1)";
    of_rows(db.query(&db.prepare_cached(sql).await?, &[&devices]).await?)
}

async fn one_time(
    db: &Transaction<'_>,
    device: MailboxId,
    kind: KeyKind,
    id: u32,
) -> Result<Option<PreKeyRow>, StoreError> {
    let sql = "SELECT device, kind, id, key, signature FROM prekey_once WHERE device = $1 AND kind = $2 AND id = $3";
    let query = db.prepare_cached(sql).await?;
    let rows = db.query(&query, &[&device.0, &number(kind), &i64::from(id)]).await?;
    Ok(of_rows(rows)?.pop().map(|of| of.key))
}

fn of_rows(rows: Vec<Row>) -> Result<Vec<Of>, StoreError> {
    let of = |row: Row| {
        let id = small(row.try_get::<_, i64>(2)?)?;
        let key = PreKeyRow { id, key: blob(&row, 3)?, signature: blob(&row, 4)? };
        Ok(Of { device: row.try_get(0)?, kind: row.try_get(1)?, key })
    };
    rows.into_iter().map(of).collect()
}
