//! Where devices are woken.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

use crate::storage::{MailboxId, PushRow};

pub(super) fn put(
    db: &Connection,
    mailbox: MailboxId,
    registration: Option<&Bytes>,
) -> rusqlite::Result<()> {
    match registration {
        Some(registration) => db
            .prepare_cached(
                "INSERT OR REPLACE INTO push (device, registration) \
                 SELECT id, ?2 FROM device WHERE id = ?1",
            )?
            .execute(params![mailbox.0, &registration[..]]),
        None => db.prepare_cached("DELETE FROM push WHERE device = ?1")?.execute([mailbox.0]),
    }
    .map(drop)
}

pub(super) fn end(
    db: &Connection,
    mailbox: MailboxId,
    registration: &Bytes,
) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM push WHERE device = ?1 AND registration = ?2")?
        .execute(params![mailbox.0, &registration[..]])
        .map(drop)
}

pub(super) fn due(
    db: &Connection,
    mailboxes: &[MailboxId],
    now_ms: i64,
) -> rusqlite::Result<Vec<PushRow>> {
    let sql = "SELECT registration, (SELECT received_ms FROM envelope WHERE mailbox = device AND expires_ms > ?2 \
               ORDER BY seq LIMIT 1) FROM push WHERE device = ?1";
    let mut query = db.prepare_cached(sql)?;
    let row = |mailbox: &MailboxId| {
        let row = query.query_row([mailbox.0, now_ms], |row| {
            let (registration, oldest_ms) = (row.get::<_, Vec<u8>>(0)?.into(), row.get(1)?);
            Ok(PushRow { mailbox: *mailbox, registration, oldest_ms, node: None })
        });
        row.optional().transpose()
    };
    mailboxes.iter().filter_map(row).collect()
}
