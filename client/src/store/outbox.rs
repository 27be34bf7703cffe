//! Rows of messages on their way out, each with a ciphertext for every device of the recipient. What the
//! relay has is in `sent_log.rs`.

use bytes::Bytes;
use rusqlite::OptionalExtension;
use tuckseal::content::Content;
use tuckseal::{Address, DeviceId, ServiceId, Timestamp};

use super::{Digest, Peer, ProfileError, Rows, from_sql, to_sql};
use crate::message::Statistics;

/// What is in a row of the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A content that takes its number in the stream, and is logged.
    Numbered = 0,
    /// A content outside the order.
    Loose = 1,
    /// A plaintext body for one device.
    Plaintext = 2,
    /// As [`Form::Numbered`], and the app does not know of it.
    Notice = 3,
    /// A message to a group.
    Group = 4,
    /// A content outside the order that is worth something now or never.
    Passing = 5,
}

impl Form {
    /// Whether it has a number in each device's stream.
    pub(crate) fn is_numbered(self) -> bool {
        matches!(self, Self::Numbered | Self::Notice)
    }
}

/// A message that the server has not confirmed.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub(crate) id: u64,
    pub(crate) form: Form,
    /// The device that it is for; the others get an empty one. `None`: all.
    pub(crate) device: Option<u8>,
    /// Under this id the server takes it once; drawn when every device has its ciphertext.
    pub(crate) submission_id: Option<[u8; 16]>,
    /// How often it was taken up again after the relay had it.
    pub(crate) resent: u32,
    /// An encoded Content without its number, or a plaintext body.
    pub(crate) content: Vec<u8>,
}

/// By what right the server took a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SentBy {
    AccessKey = 0,
    Token = 1,
}

/// What one device gets of a message.
#[derive(Debug, Clone)]
pub(crate) struct Ciphertext {
    pub(crate) device_id: DeviceId,
    pub(crate) registration_id: u32,
    /// [`tuckseal::ContentKind`] as a number.
    pub(crate) kind: u8,
    /// Its number in the device's stream; both 0 outside the order.
    pub(crate) stream: u64,
    pub(crate) sequence: u64,
    /// SHA-256 of the body, first 16 bytes.
    pub(crate) digest: Digest,
    /// Base key of the session that encrypted it.
    pub(crate) session: Option<[u8; 32]>,
    pub(crate) body: Bytes,
}

/// How far a message is for one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It has neither number nor ciphertext.
    Untouched,
    /// It has a number, and has to be encrypted.
    Numbered {
        stream: u64,
        sequence: u64,
    },
    Encrypted,
}

const WAITING_COLUMNS: &str = "id, form, device, submission_id, resent, content";

fn read_waiting(row: &rusqlite::Row<'_>) -> rusqlite::Result<Waiting> {
    Ok(Waiting {
        id: from_sql(row.get(0)?),
        form: match row.get::<_, u8>(1)? {
            0 => Form::Numbered,
            1 => Form::Loose,
            2 => Form::Plaintext,
            3 => Form::Notice,
            4 => Form::Group,
            _ => Form::Passing,
        },
        device: row.get(2)?,
        submission_id: row.get(3)?,
        resent: row.get(4)?,
        content: row.get(5)?,
    })
}

impl Rows<'_> {
    pub(crate) fn insert_outbox(
        self,
        account: ServiceId,
        device: Option<DeviceId>,
        form: Form,
        content: &[u8],
    ) -> Result<u64, ProfileError> {
        let mut statement = self.0.prepare_cached(
            "INSERT INTO outbox (account, device, form, content) VALUES (?1, ?2, ?3, ?4) RETURNING id",
        )?;
        let device = device.map(DeviceId::get);
        let columns = (account.uuid(), device, form as u8, content);
        let id: i64 = statement.query_row(columns, |row| row.get(0))?;
        Ok(from_sql(id))
    }

    /// Puts a content of our own making into the outbox.
    pub(crate) fn put_out(
        self,
        account: ServiceId,
        form: Form,
        content: &Content,
    ) -> Result<u64, ProfileError> {
        if self.peer(account)?.is_none() {
            self.save_peer(&Peer::unknown(account))?;
        }
        let id = self.insert_outbox(account, None, form, &content.encode())?;
        let timestamp_ms = to_sql(content.timestamp.as_millis());
        self.0
            .prepare_cached("UPDATE outbox SET timestamp_ms = ?2 WHERE id = ?1")?
            .execute((to_sql(id), timestamp_ms))?;
        Ok(id)
    }

    /// Somebody says what became of messages: which they are.
    pub(crate) fn note_receipt(
        self,
        account: ServiceId,
        timestamp: Timestamp,
        receipt: u8,
    ) -> Result<Option<u64>, ProfileError> {
        let columns = (account.uuid(), to_sql(timestamp.as_millis()), receipt);
        let alone = "UPDATE outbox SET receipt = max(receipt, ?3)
                     WHERE timestamp_ms = ?2 AND account = ?1 AND form = 0 RETURNING id";
        let in_group = "UPDATE recipient SET receipt = max(receipt, ?3) WHERE account = ?1 AND message IN
                        (SELECT id FROM outbox WHERE timestamp_ms = ?2 AND form = 4) RETURNING message";
        for sql in [alone, in_group] {
            let mut statement = self.0.prepare_cached(sql)?;
            let id: Option<i64> = statement.query_row(columns, |row| row.get(0)).optional()?;
            if let Some(id) = id {
                return Ok(Some(from_sql(id)));
            }
        }
        Ok(None)
    }

    /// The oldest message to an account that waits.
    pub(crate) fn first_waiting(self, account: ServiceId) -> Result<Option<Waiting>, ProfileError> {
        let sql = format!(
            "SELECT {WAITING_COLUMNS} FROM outbox WHERE account = ?1 AND state < 2 ORDER BY id LIMIT 1"
        );
        let mut statement = self.0.prepare_cached(&sql)?;
        Ok(statement.query_row((account.uuid(),), read_waiting).optional()?)
    }

    /// Messages to an account that lack a ciphertext, oldest first.
    pub(crate) fn not_encrypted(self, account: ServiceId) -> Result<Vec<Waiting>, ProfileError> {
        let sql = format!(
            "SELECT {WAITING_COLUMNS} FROM outbox WHERE account = ?1 AND state = 0 ORDER BY id"
        );
        let mut statement = self.0.prepare_cached(&sql)?;
        let rows = statement.query_map((account.uuid(),), read_waiting)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Accounts for which a message waits, the longest waiting first.
    pub(crate) fn waiting_accounts(self) -> Result<Vec<ServiceId>, ProfileError> {
        let mut statement = self.0.prepare_cached(
            "SELECT account FROM outbox WHERE state < 2 AND account IS NOT NULL GROUP BY account ORDER BY min(id)",
        )?;
        let rows = statement.query_map((), |row| Ok(ServiceId::aci(row.get(0)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(crate) fn outbox_is_empty(self) -> Result<bool, ProfileError> {
        let sql = "SELECT 1 FROM outbox WHERE state < 2 LIMIT 1";
        Ok(!self.0.prepare_cached(sql)?.exists(())?)
    }

    /// How many messages wait.
    pub(crate) fn outbox_len(self) -> Result<u64, ProfileError> {
        let mut statement = self.0.prepare_cached("SELECT count(*) FROM outbox WHERE state < 2")?;
        Ok(from_sql(statement.query_row((), |row| row.get(0))?))
    }

    /// State of a message, how often it was taken up again, and its receipt: `None` when it is not here (any
    /// more).
    pub(crate) fn outbox_state(self, id: u64) -> Result<Option<(u8, u32, u8)>, ProfileError> {
        let mut statement =
            self.0.prepare_cached("SELECT state, resent, receipt FROM outbox WHERE id = ?1")?;
        let columns = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        Ok(statement.query_row((to_sql(id),), columns).optional()?)
    }

    /// A message that waits.
    pub(crate) fn waiting(self, id: u64) -> Result<Option<Waiting>, ProfileError> {
        let sql = format!("SELECT {WAITING_COLUMNS} FROM outbox WHERE id = ?1 AND state < 2");
        let mut statement = self.0.prepare_cached(&sql)?;
        Ok(statement.query_row((to_sql(id),), read_waiting).optional()?)
    }

    /// Numbered messages that are here; without a trimmed log all that ever were.
    #[cfg(test)]
    pub(crate) fn messages_ever(self) -> Result<u64, ProfileError> {
        let sql = "SELECT count(*) FROM outbox WHERE form IN (0, 4)";
        Ok(from_sql(self.0.query_row(sql, (), |row| row.get(0))?))
    }

    /// The largest id that was ever given.
    pub(crate) fn outbox_last(self) -> Result<u64, ProfileError> {
        let sql = "SELECT ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'outbox'), 0)";
        Ok(from_sql(self.0.query_row(sql, (), |row| row.get(0))?))
    }

    /// Every device has its ciphertext; under this id it is submitted.
    pub(crate) fn mark_encrypted(
        self,
        id: u64,
        submission_id: [u8; 16],
    ) -> Result<(), ProfileError> {
        let mut statement = self
            .0
            .prepare_cached("UPDATE outbox SET state = 1, submission_id = ?2 WHERE id = ?1")?;
        statement.execute((to_sql(id), submission_id))?;
        Ok(())
    }

    /// A message is given up. `true` when the app knows of it: it was never at the relay.
    pub(crate) fn mark_refused(self, id: u64) -> Result<bool, ProfileError> {
        let mut statement = self.0.prepare_cached(
            "UPDATE outbox SET state = 2 WHERE id = ?1 AND form IN (0, 4) AND resent = 0",
        )?;
        if statement.execute((to_sql(id),))? == 0 {
            self.delete_outbox(id)?;
            return Ok(false);
        }
        self.0.execute("DELETE FROM ciphertext WHERE message = ?1", (to_sql(id),))?;
        Ok(true)
    }

    /// Refuses all that waits for an account; the ids that the app knows.
    pub(crate) fn refuse_all(self, account: ServiceId) -> Result<Vec<u64>, ProfileError> {
        let mut statement = self
            .0
            .prepare_cached("SELECT id FROM outbox WHERE account = ?1 AND state < 2 ORDER BY id")?;
        let ids: Vec<i64> =
            statement.query_map((account.uuid(),), |row| row.get(0))?.collect::<Result<_, _>>()?;
        let mut known = Vec::new();
        for id in ids.into_iter().map(from_sql) {
            if self.mark_refused(id)? {
                known.push(id);
            }
        }
        Ok(known)
    }

    /// Nobody is there for what waits for an account, up to this message.
    pub(crate) fn delete_waiting(self, account: ServiceId, last: u64) -> Result<(), ProfileError> {
        self.0.execute(
            "DELETE FROM outbox WHERE account = ?1 AND state < 2 AND id <= ?2",
            (account.uuid(), to_sql(last)),
        )?;
        Ok(())
    }

    /// What waits for an account is looked at again: a device was added or has lost its ciphertexts.
    /// Nothing of it is at the server, so the submission ids are given up.
    pub(crate) fn mark_not_encrypted(self, account: ServiceId) -> Result<(), ProfileError> {
        self.0.execute(
            "UPDATE outbox SET state = 0, submission_id = NULL WHERE account = ?1 AND state < 2",
            (account.uuid(),),
        )?;
        Ok(())
    }

    /// A device that we have never written to: what waits and lacks it is looked at again, before anything later gets a number in
    /// the stream to it. The relay takes none of that without it. `state < 2` is what the index is of.
    pub(crate) fn mark_lacking(self, address: Address) -> Result<(), ProfileError> {
        let mut statement = self.0.prepare_cached(
            "UPDATE outbox SET state = 0, submission_id = NULL WHERE account = ?1 AND state < 2 AND state = 1
             AND NOT EXISTS (SELECT 1 FROM ciphertext WHERE message = outbox.id AND device = ?2)",
        )?;
        statement.execute((address.service_id.uuid(), address.device_id.get()))?;
        Ok(())
    }

    /// Deletes the ciphertexts that wait for a device.
    pub(crate) fn delete_ciphertexts(self, address: Address) -> Result<(), ProfileError> {
        self.0.execute(
            "DELETE FROM ciphertext WHERE device = ?2 AND message IN (SELECT id FROM outbox WHERE account = ?1 AND state < 2)",
            (address.service_id.uuid(), address.device_id.get()),
        )?;
        Ok(())
    }

    pub(crate) fn delete_outbox(self, id: u64) -> Result<(), ProfileError> {
        self.0.prepare_cached("DELETE FROM outbox WHERE id = ?1")?.execute((to_sql(id),))?;
        Ok(())
    }

    /// What was to be sent at once and was not will not be sent.
    pub(crate) fn delete_passing(self) -> Result<(), ProfileError> {
        self.0.execute("DELETE FROM outbox WHERE form = ?1", (Form::Passing as u8,))?;
        Ok(())
    }

    /// Counts a message that the server has taken.
    pub(crate) fn count_sent(self, way: SentBy) -> Result<(), ProfileError> {
        let mut statement = self.0.prepare_cached(
            "INSERT INTO statistic (way, count) VALUES (?1, 1) ON CONFLICT (way) DO UPDATE SET count = count + 1",
        )?;
        statement.execute((way as u8,))?;
        Ok(())
    }

    pub(crate) fn statistics(self) -> Result<Statistics, ProfileError> {
        let count = |way: SentBy| {
            let mut statement = self
                .0
                .prepare_cached("SELECT ifnull(sum(count), 0) FROM statistic WHERE way = ?1")?;
            statement.query_row((way as u8,), |row| row.get(0)).map(from_sql)
        };
        Ok(Statistics {
            sent_anonymously: count(SentBy::AccessKey)?,
            sent_with_token: count(SentBy::Token)?,
        })
    }

    pub(crate) fn insert_ciphertext(
        self,
        message: u64,
        ciphertext: &Ciphertext,
    ) -> Result<(), ProfileError> {
        let mut statement = self.0.prepare_cached(
            "INSERT OR REPLACE INTO ciphertext (message, device, registration_id, kind, stream, sequence, digest, session, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?;
        statement.execute((
            to_sql(message),
            ciphertext.device_id.get(),
            ciphertext.registration_id,
            ciphertext.kind,
            to_sql(ciphertext.stream),
            to_sql(ciphertext.sequence),
            ciphertext.digest,
            ciphertext.session,
            &ciphertext.body[..],
        ))?;
        Ok(())
    }

    pub(crate) fn ciphertexts(self, message: u64) -> Result<Vec<Ciphertext>, ProfileError> {
        let mut statement = self.0.prepare_cached(
            "SELECT device, registration_id, kind, stream, sequence, digest, session, body FROM ciphertext
             WHERE message = ?1 AND body IS NOT NULL ORDER BY device",
        )?;
        let columns = |row: &rusqlite::Row<'_>| {
            let body: Vec<u8> = row.get(7)?;
            Ok(Ciphertext {
                device_id: DeviceId::new(row.get(0)?).unwrap_or(DeviceId::PRIMARY),
                registration_id: row.get(1)?,
                kind: row.get(2)?,
                stream: from_sql(row.get(3)?),
                sequence: from_sql(row.get(4)?),
                digest: row.get(5)?,
                session: row.get(6)?,
                body: body.into(),
            })
        };
        Ok(statement.query_map((to_sql(message),), columns)?.collect::<Result<_, _>>()?)
    }

    pub(crate) fn progress(
        self,
        message: u64,
        device_id: DeviceId,
    ) -> Result<Progress, ProfileError> {
        let mut statement = self.0.prepare_cached(
            "SELECT body IS NOT NULL, stream, sequence FROM ciphertext WHERE message = ?1 AND device = ?2",
        )?;
        let columns = |row: &rusqlite::Row<'_>| {
            let (stream, sequence) = (from_sql(row.get(1)?), from_sql(row.get(2)?));
            let numbered = Progress::Numbered { stream, sequence };
            Ok(if row.get(0)? { Progress::Encrypted } else { numbered })
        };
        let found = statement.query_row((to_sql(message), device_id.get()), columns).optional()?;
        Ok(found.unwrap_or(Progress::Untouched))
    }
}
