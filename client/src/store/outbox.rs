//! Rows of messages on their way out, each with a ciphertext for every device of the recipient.

use bytes::Bytes;
use rusqlite::OptionalExtension;
use tuckseal::{Address, DeviceId, ServiceId};

use super::{ProfileError, Rows, from_sql, to_sql};
use crate::message::Statistics;

/// A message that the server has not confirmed.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub(crate) id: u64,
    /// Under this id the server takes it once; drawn when every device has its ciphertext.
    pub(crate) submission_id: Option<[u8; 16]>,
    /// An encoded Content without its sequence number.
    pub(crate) content: Vec<u8>,
}

/// By what right the server took a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SentBy {
    AccessKey = 0,
    Token = 1,
}

/// A session's message for one device.
#[derive(Debug, Clone)]
pub(crate) struct Ciphertext {
    pub(crate) device_id: DeviceId,
    pub(crate) registration_id: u32,
    /// [`tuckseal::MessageKind`] as a number.
    pub(crate) kind: u8,
    pub(crate) body: Bytes,
}

fn read_waiting(row: &rusqlite::Row<'_>) -> rusqlite::Result<Waiting> {
    Ok(Waiting { id: from_sql(row.get(0)?), submission_id: row.get(1)?, content: row.get(2)? })
}

impl Rows<'_> {
    pub(crate) fn insert_outbox(
        self,
        account: ServiceId,
        content: &[u8],
    ) -> Result<u64, ProfileError> {
        let mut statement = self
            .0
            .prepare_cached("INSERT INTO outbox (account, content) VALUES (?1, ?2) RETURNING id")?;
        let id: i64 = statement.query_row((account.uuid(), content), |row| row.get(0))?;
        Ok(from_sql(id))
    }

    /// The oldest message to an account that waits.
    pub(crate) fn first_waiting(self, account: ServiceId) -> Result<Option<Waiting>, ProfileError> {
        let mut statement = self.0.prepare_cached(
            "SELECT id, submission_id, content FROM outbox WHERE account = ?1 AND state < 2 ORDER BY id LIMIT 1",
        )?;
        Ok(statement.query_row((account.uuid(),), read_waiting).optional()?)
    }

    /// Messages to an account that lack a ciphertext, oldest first.
    pub(crate) fn not_encrypted(self, account: ServiceId) -> Result<Vec<Waiting>, ProfileError> {
        let mut statement = self.0.prepare_cached(
            "SELECT id, submission_id, content FROM outbox WHERE account = ?1 AND state = 0 ORDER BY id",
        )?;
        let rows = statement.query_map((account.uuid(),), read_waiting)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Accounts for which a message waits, the longest waiting first.
    pub(crate) fn waiting_accounts(self) -> Result<Vec<ServiceId>, ProfileError> {
        let mut statement = self.0.prepare_cached(
            "SELECT account FROM outbox WHERE state < 2 GROUP BY account ORDER BY min(id)",
        )?;
        let rows = statement.query_map((), |row| Ok(ServiceId::aci(row.get(0)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How many messages wait.
    pub(crate) fn outbox_len(self) -> Result<u64, ProfileError> {
        let mut statement = self.0.prepare_cached("SELECT count(*) FROM outbox WHERE state < 2")?;
        Ok(from_sql(statement.query_row((), |row| row.get(0))?))
    }

    /// The state of a message: `None` when it is not in the outbox (any more).
    pub(crate) fn outbox_state(self, id: u64) -> Result<Option<u8>, ProfileError> {
        let mut statement = self.0.prepare_cached("SELECT state FROM outbox WHERE id = ?1")?;
        Ok(statement.query_row((to_sql(id),), |row| row.get(0)).optional()?)
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

    pub(crate) fn mark_refused(self, id: u64) -> Result<(), ProfileError> {
        self.0.execute("UPDATE outbox SET state = 2 WHERE id = ?1", (to_sql(id),))?;
        self.0.execute("DELETE FROM ciphertext WHERE message = ?1", (to_sql(id),))?;
        Ok(())
    }

    /// Refuses all that waits for an account; the ids that it concerns.
    pub(crate) fn refuse_all(self, account: ServiceId) -> Result<Vec<u64>, ProfileError> {
        let mut statement = self
            .0
            .prepare_cached("SELECT id FROM outbox WHERE account = ?1 AND state < 2 ORDER BY id")?;
        let ids: Vec<i64> =
            statement.query_map((account.uuid(),), |row| row.get(0))?.collect::<Result<_, _>>()?;
        let ids: Vec<u64> = ids.into_iter().map(from_sql).collect();
        ids.iter().try_for_each(|id| self.mark_refused(*id))?;
        Ok(ids)
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
            "INSERT INTO ciphertext (message, device, registration_id, kind, body) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        let Ciphertext { device_id, registration_id, kind, body } = ciphertext;
        statement.execute((to_sql(message), device_id.get(), registration_id, kind, &body[..]))?;
        Ok(())
    }

    pub(crate) fn ciphertexts(self, message: u64) -> Result<Vec<Ciphertext>, ProfileError> {
        let mut statement = self.0.prepare_cached(
            "SELECT device, registration_id, kind, body FROM ciphertext WHERE message = ?1 ORDER BY device",
        )?;
        let columns =
            |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        let rows = statement.query_map((to_sql(message),), columns)?;
        rows.map(|row| {
            let (device, registration_id, kind, body): (u8, u32, u8, Vec<u8>) = row?;
            let device_id =
                DeviceId::new(device).ok_or(ProfileError::Damaged { what: "ciphertext" })?;
            Ok(Ciphertext { device_id, registration_id, kind, body: body.into() })
        })
        .collect()
    }

    pub(crate) fn has_ciphertext(
        self,
        message: u64,
        device_id: DeviceId,
    ) -> Result<bool, ProfileError> {
        let mut statement =
            self.0.prepare_cached("SELECT 1 FROM ciphertext WHERE message = ?1 AND device = ?2")?;
        Ok(statement.exists((to_sql(message), device_id.get()))?)
    }
}
