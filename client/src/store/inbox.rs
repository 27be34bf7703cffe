//! Rows of what came in: messages for the app, messages that came too early, envelopes that were
//! seen, held back or could not be read. Every table that a peer can fill has a bound.

use rusqlite::OptionalExtension;
use tuckseal::content::{Body, Content, Data, ReadMark, Sync};
use tuckseal::{Address, DeviceId, IdentityKey, ServiceId, Timestamp};

use super::{ProfileError, Rows, from_sql, to_sql};
use crate::message::{GroupId, Message, MessageId};

/// Ids that are remembered, two for each message: more than the relay has unacknowledged at any time.
const SEEN_MAX: i64 = 40_000;
/// Numbers of a device that may still come late.
const MISSING_MAX: u64 = 1_024;
/// Rows of the failure table.
const FAILURES_MAX: i64 = 1_000;

/// A message whose turn has not come, or has just come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Early {
    pub(crate) sequence: u64,
    /// When it came in.
    pub(crate) since: Timestamp,
    /// When the sender says it was sent.
    pub(crate) sent: Timestamp,
    /// The part of the content that waits, encoded. `None`: it only takes its place.
    pub(crate) content: Option<Vec<u8>>,
}

/// An envelope that waits for a decision about its sender.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) id: i64,
    pub(crate) server_ms: u64,
    pub(crate) content: Vec<u8>,
}

fn message(
    id: MessageId,
    sender: Address,
    sent: Timestamp,
    missing: u64,
    content: Content,
) -> Message {
    let mut is_history = false;
    let (sent_to, data) = match content.body {
        Body::Data(data) => (None, data),
        Body::Sync(Sync::Sent(sent)) => (sent.to, sent.data),
        Body::Sync(Sync::History(archive)) => {
            is_history = true;
            (None, Data { attachments: vec![archive], ..Data::default() })
        }
        _ => (None, Data::default()),
    };
    Message {
        id,
        from: sender.service_id,
        sent_to,
        is_history,
        device_id: sender.device_id,
        sent,
        missing_before: missing,
        group: data.group.map(|group| GroupId(group.id)),
        text: data.text,
        attachments: data.attachments,
        location: data.location,
    }
}

fn read_message(row: &rusqlite::Row<'_>) -> Result<Message, ProfileError> {
    let content: Vec<u8> = row.get(5)?;
    let content = Content::decode(&content).map_err(|_| ProfileError::Damaged { what: "inbox" })?;
    let device = DeviceId::new(row.get(2)?).unwrap_or(DeviceId::PRIMARY);
    let sender = Address::new(ServiceId::aci(row.get(1)?), device);
    let sent = Timestamp::from_millis(from_sql(row.get(3)?));
    let (id, missing) = (from_sql(row.get(0)?), from_sql(row.get(4)?));
    Ok(message(MessageId(id), sender, sent, missing, content))
}

impl Rows<'_> {
    /// Whether an envelope was dealt with, or a message read before; remembers it in any case.
    pub(crate) fn see(self, id: &[u8]) -> Result<bool, ProfileError> {
        // An insert that is ignored would use up a position, and the place of another.
        if self.has_seen(id)? {
            return Ok(true);
        }
        self.0.prepare_cached("INSERT INTO seen (id) VALUES (?1)")?.execute((id,))?;
        let last = self.0.last_insert_rowid();
        self.0
            .prepare_cached("DELETE FROM seen WHERE position <= ?1")?
            .execute((last - SEEN_MAX,))?;
        Ok(false)
    }

    pub(crate) fn has_seen(self, id: &[u8]) -> Result<bool, ProfileError> {
        Ok(self.0.prepare_cached("SELECT 1 FROM seen WHERE id = ?1")?.exists((id,))?)
    }

    /// The numbers from `from` to below `to` are waited for no more; the last 1,024 may come late.
    pub(crate) fn insert_missing(
        self,
        sender: Address,
        from: u64,
        to: u64,
    ) -> Result<(), ProfileError> {
        let (account, device) = (sender.service_id.uuid(), sender.device_id.get());
        let mut statement = self.0.prepare_cached(
            "INSERT OR IGNORE INTO missing (account, device, sequence) VALUES (?1, ?2, ?3)",
        )?;
        for sequence in from.max(to.saturating_sub(MISSING_MAX))..to {
            statement.execute((account, device, to_sql(sequence)))?;
        }
        self.0.prepare_cached(
            "DELETE FROM missing WHERE account = ?1 AND device = ?2 AND sequence <=
             (SELECT sequence FROM missing WHERE account = ?1 AND device = ?2 ORDER BY sequence DESC LIMIT 1 OFFSET ?3)",
        )?
        .execute((account, device, to_sql(MISSING_MAX)))?;
        Ok(())
    }

    /// Whether a number was missing; now it is not.
    pub(crate) fn take_missing(self, sender: Address, sequence: u64) -> Result<bool, ProfileError> {
        let mut statement = self.0.prepare_cached(
            "DELETE FROM missing WHERE account = ?1 AND device = ?2 AND sequence = ?3",
        )?;
        let key = (sender.service_id.uuid(), sender.device_id.get(), to_sql(sequence));
        Ok(statement.execute(key)? > 0)
    }

    /// The stream that the missing numbers belong to is over.
    pub(crate) fn forget_missing(self, sender: Address) -> Result<(), ProfileError> {
        self.0.execute(
            "DELETE FROM missing WHERE account = ?1 AND device = ?2",
            (sender.service_id.uuid(), sender.device_id.get()),
        )?;
        Ok(())
    }

    pub(crate) fn insert_inbox(
        self,
        sender: Address,
        sent: Timestamp,
        missing: u64,
        content: Content,
    ) -> Result<Message, ProfileError> {
        let mut statement = self.0.prepare_cached(
            "INSERT INTO inbox (account, device, sent_ms, missing, content) VALUES (?1, ?2, ?3, ?4, ?5) RETURNING id",
        )?;
        let sent_ms = to_sql(sent.as_millis());
        let (account, device) = (sender.service_id.uuid(), sender.device_id.get());
        let columns = (account, device, sent_ms, to_sql(missing), content.encode());
        let id: i64 = statement.query_row(columns, |row| row.get(0))?;
        Ok(message(MessageId(from_sql(id)), sender, sent, missing, content))
    }

    /// Unacknowledged messages with an id above `after`, in order.
    pub(crate) fn inbox(self, after: u64, limit: u32) -> Result<Vec<Message>, ProfileError> {
        let mut statement = self.0.prepare_cached(
            "SELECT id, account, device, sent_ms, missing, content FROM inbox WHERE id > ?1 ORDER BY id LIMIT ?2",
        )?;
        let columns = |row: &rusqlite::Row<'_>| Ok(read_message(row));
        let rows = statement.query_map((to_sql(after), limit), columns)?;
        rows.map(|row| row?).collect()
    }

    /// The largest id that was ever given.
    pub(crate) fn inbox_last(self) -> Result<u64, ProfileError> {
        let sql = "SELECT ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'inbox'), 0)";
        Ok(from_sql(self.0.query_row(sql, (), |row| row.get(0))?))
    }

    /// A message of the inbox, if it is there.
    pub(crate) fn inbox_message(self, id: MessageId) -> Result<Option<Message>, ProfileError> {
        let sql = "SELECT id, account, device, sent_ms, missing, content FROM inbox WHERE id = ?1";
        let mut statement = self.0.prepare_cached(sql)?;
        let row = statement.query_row((to_sql(id.0),), |row| Ok(read_message(row))).optional()?;
        row.transpose()
    }

    /// The messages of the inbox that a mark means: as a rule one.
    pub(crate) fn inbox_marked(self, mark: &ReadMark) -> Result<Vec<MessageId>, ProfileError> {
        let sql = "SELECT id FROM inbox WHERE account = ?1 AND sent_ms = ?2 ORDER BY id";
        let mut statement = self.0.prepare_cached(sql)?;
        let key = (mark.sender.uuid(), to_sql(mark.timestamp.as_millis()));
        let rows = statement.query_map(key, |row| Ok(MessageId(from_sql(row.get(0)?))))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(crate) fn delete_inbox(self, id: u64) -> Result<(), ProfileError> {
        self.0.prepare_cached("DELETE FROM inbox WHERE id = ?1")?.execute((to_sql(id),))?;
        Ok(())
    }

    /// Keeps a message until its turn comes. `false` when one with this number waits already.
    pub(crate) fn insert_early(self, sender: Address, early: &Early) -> Result<bool, ProfileError> {
        let mut statement = self.0.prepare_cached(
            "INSERT OR IGNORE INTO early (account, device, sequence, since_ms, sent_ms, content) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        let changed = statement.execute((
            sender.service_id.uuid(),
            sender.device_id.get(),
            to_sql(early.sequence),
            to_sql(early.since.as_millis()),
            to_sql(early.sent.as_millis()),
            &early.content,
        ))?;
        Ok(changed > 0)
    }

    /// The waiting message of a device with the least number.
    pub(crate) fn first_early(self, sender: Address) -> Result<Option<Early>, ProfileError> {
        let mut statement = self.0.prepare_cached(
            "SELECT sequence, since_ms, sent_ms, content FROM early WHERE account = ?1 AND device = ?2 ORDER BY sequence LIMIT 1",
        )?;
        let columns = |row: &rusqlite::Row<'_>| {
            Ok(Early {
                sequence: from_sql(row.get(0)?),
                since: Timestamp::from_millis(from_sql(row.get(1)?)),
                sent: Timestamp::from_millis(from_sql(row.get(2)?)),
                content: row.get(3)?,
            })
        };
        Ok(statement
            .query_row((sender.service_id.uuid(), sender.device_id.get()), columns)
            .optional()?)
    }

    pub(crate) fn delete_early(self, sender: Address, sequence: u64) -> Result<(), ProfileError> {
        self.0.execute(
            "DELETE FROM early WHERE account = ?1 AND device = ?2 AND sequence = ?3",
            (sender.service_id.uuid(), sender.device_id.get(), to_sql(sequence)),
        )?;
        Ok(())
    }

    /// How many messages of a device wait.
    pub(crate) fn early_count(self, sender: Address) -> Result<u64, ProfileError> {
        let mut statement = self
            .0
            .prepare_cached("SELECT count(*) FROM early WHERE account = ?1 AND device = ?2")?;
        let key = (sender.service_id.uuid(), sender.device_id.get());
        Ok(from_sql(statement.query_row(key, |row| row.get(0))?))
    }

    /// The numbers that wait, the least first, at most so many.
    pub(crate) fn early_numbers(
        self,
        sender: Address,
        limit: u32,
    ) -> Result<Vec<u64>, ProfileError> {
        let mut statement = self.0.prepare_cached(
            "SELECT sequence FROM early WHERE account = ?1 AND device = ?2 ORDER BY sequence LIMIT ?3",
        )?;
        let key = (sender.service_id.uuid(), sender.device_id.get(), limit);
        let rows = statement.query_map(key, |row| Ok(from_sql(row.get(0)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The sender whose message waits longest, and since when.
    pub(crate) fn oldest_early(self) -> Result<Option<(Address, Timestamp)>, ProfileError> {
        let mut statement = self.0.prepare_cached(
            "SELECT account, device, since_ms FROM early ORDER BY since_ms LIMIT 1",
        )?;
        let columns = |row: &rusqlite::Row<'_>| {
            let device = DeviceId::new(row.get(1)?).unwrap_or(DeviceId::PRIMARY);
            let address = Address::new(ServiceId::aci(row.get(0)?), device);
            Ok((address, Timestamp::from_millis(from_sql(row.get(2)?))))
        };
        Ok(statement.query_row((), columns).optional()?)
    }

    /// Holds an envelope; beyond `limit` of its account the oldest goes. How many went.
    pub(crate) fn hold(
        self,
        account: ServiceId,
        identity: &IdentityKey,
        server_ms: u64,
        content: &[u8],
        limit: u32,
    ) -> Result<usize, ProfileError> {
        self.0.execute(
            "INSERT INTO held (account, identity, server_ms, content) VALUES (?1, ?2, ?3, ?4)",
            (account.uuid(), identity.serialize(), to_sql(server_ms), content),
        )?;
        let gone = self.0.execute(
            "DELETE FROM held WHERE account = ?1 AND id <= (SELECT id FROM held WHERE account = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            (account.uuid(), limit),
        )?;
        Ok(gone)
    }

    /// The envelopes held under an identity key, oldest first.
    pub(crate) fn held(
        self,
        account: ServiceId,
        identity: &IdentityKey,
    ) -> Result<Vec<Held>, ProfileError> {
        let mut statement = self
            .0
            .prepare_cached("SELECT id, server_ms, content FROM held WHERE account = ?1 AND identity = ?2 ORDER BY id")?;
        let columns = |row: &rusqlite::Row<'_>| {
            Ok(Held { id: row.get(0)?, server_ms: from_sql(row.get(1)?), content: row.get(2)? })
        };
        let rows = statement.query_map((account.uuid(), identity.serialize()), columns)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(crate) fn delete_held(self, id: i64) -> Result<(), ProfileError> {
        self.0.execute("DELETE FROM held WHERE id = ?1", (id,))?;
        Ok(())
    }

    /// Counts a failure; how often it has happened.
    pub(crate) fn count_failure(
        self,
        account: Option<ServiceId>,
        reason: u8,
        now: Timestamp,
    ) -> Result<u64, ProfileError> {
        let account = account.as_ref().map_or(&[][..], |account| account.uuid());
        let mut statement = self.0.prepare_cached(
            "INSERT INTO failure (account, reason, count, last_ms) VALUES (?1, ?2, 1, ?3)
             ON CONFLICT (account, reason) DO UPDATE SET count = count + 1, last_ms = ?3 RETURNING count",
        )?;
        let count: i64 =
            statement.query_row((account, reason, to_sql(now.as_millis())), |row| row.get(0))?;
        if count == 1 {
            self.0.execute(
                "DELETE FROM failure WHERE (account, reason) IN
                 (SELECT account, reason FROM failure ORDER BY last_ms DESC LIMIT -1 OFFSET ?1)",
                (FAILURES_MAX,),
            )?;
        }
        Ok(from_sql(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Profile, Store};

    #[test]
    fn what_was_seen_is_not_forgotten_for_what_comes_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path(), Profile::Create).unwrap();
        let done = store.commit(|rows| {
            assert!(!rows.see(b"first")? && !rows.see(b"again")?);
            for _ in 0..=SEEN_MAX {
                assert!(rows.see(b"again")?);
            }
            assert!(!rows.see(b"last")? && rows.see(b"first")?);
            Ok::<_, ProfileError>(())
        });
        done.unwrap();
    }
}
