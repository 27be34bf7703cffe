//! Rows of groups: who is in them, our key for each, and the keys of the others' devices.

use rusqlite::OptionalExtension;
use tuckseal::{Address, SenderKey, SenderKeyRecord, ServiceId};
use zeroize::Zeroizing;

use super::{Digest, ProfileError, Rows, Waiting, from_sql, to_sql};
use crate::message::GroupId;

/// Keys of other devices that are kept. Beyond it the first goes of the account that has most: nobody pushes out the keys of
/// others by handing out their own.
const SENDER_KEYS_MAX: i64 = 20_000;

/// What a group is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) id: GroupId,
    pub(crate) name: String,
    pub(crate) revision: u32,
    pub(crate) standing: Standing,
    /// We are among them while we are a member; by account.
    pub(crate) members: Vec<ServiceId>,
}

/// Whether we are in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Member = 0,
    Former = 1,
}

/// How far a group message is for one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    /// By the upload for many, which is not through.
    Pending = 0,
    /// By the upload for many.
    Together = 1,
    /// By a message of its own.
    Alone = 2,
}

/// A message to a group that waits for its upload.
#[derive(Debug)]
pub(crate) struct GroupMessage {
    pub(crate) waiting: Waiting,
    pub(crate) group: GroupId,
    pub(crate) submission_id: [u8; 16],
    pub(crate) body: Vec<u8>,
}

impl Rows<'_> {
    pub(crate) fn group(self, id: GroupId) -> Result<Option<Group>, ProfileError> {
        let sql = "SELECT name, revision, standing FROM chat_group WHERE id = ?1";
        let columns = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let found: Option<(String, u32, u8)> =
            self.0.prepare_cached(sql)?.query_row((id.0,), columns).optional()?;
        let Some((name, revision, standing)) = found else { return Ok(None) };
        let sql = "SELECT account FROM group_member WHERE id = ?1 ORDER BY account";
        let mut statement = self.0.prepare_cached(sql)?;
        let members = statement.query_map((id.0,), |row| Ok(ServiceId::aci(row.get(0)?)))?;
        let standing = if standing == 0 { Standing::Member } else { Standing::Former };
        let members = members.collect::<Result<_, _>>()?;
        Ok(Some(Group { id, name, revision, standing, members }))
    }

    pub(crate) fn groups(self) -> Result<Vec<Group>, ProfileError> {
        let mut statement = self.0.prepare_cached("SELECT id FROM chat_group ORDER BY name, id")?;
        let ids: Vec<[u8; 16]> =
            statement.query_map((), |row| row.get(0))?.collect::<Result<_, _>>()?;
        let groups = ids.into_iter().map(|id| self.group(GroupId(id)));
        groups.filter_map(Result::transpose).collect()
    }

    /// The only way to say who is in a group. Our key for it goes, and whoever is to read us gets the next
    /// one: nobody who was in keeps a key that is used.
    pub(crate) fn save_group(self, group: &Group) -> Result<(), ProfileError> {
        let Group { id, name, revision, standing, members } = group;
        self.0.execute(
            "INSERT INTO chat_group (id, name, revision, standing) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (id) DO UPDATE SET name = ?2, revision = ?3, standing = ?4, key = NULL",
            (id.0, name, revision, *standing as u8),
        )?;
        self.0.execute("DELETE FROM group_member WHERE id = ?1", (id.0,))?;
        for member in members {
            self.0.execute(
                "INSERT OR IGNORE INTO group_member (id, account) VALUES (?1, ?2)",
                (id.0, member.uuid()),
            )?;
        }
        // What waits for those who are not in it any more does not go to them.
        self.0.execute(
            "DELETE FROM recipient WHERE state = 0 AND message IN (SELECT id FROM outbox WHERE chat = ?1)
             AND account NOT IN (SELECT account FROM group_member WHERE id = ?1)",
            (id.0,),
        )?;
        Ok(())
    }

    /// An account has made us a member.
    pub(crate) fn set_inviter(self, id: GroupId, account: ServiceId) -> Result<(), ProfileError> {
        let sql = "UPDATE chat_group SET inviter = ?2 WHERE id = ?1";
        self.0.prepare_cached(sql)?.execute((id.0, account.uuid()))?;
        Ok(())
    }

    /// We have done something in a group.
    pub(crate) fn answer_inviter(self, id: GroupId) -> Result<(), ProfileError> {
        let sql = "UPDATE chat_group SET inviter = NULL WHERE id = ?1 AND inviter IS NOT NULL";
        self.0.prepare_cached(sql)?.execute((id.0,))?;
        Ok(())
    }

    /// How many groups an account has made us a member of, this one not counted, in which we have done nothing since.
    pub(crate) fn unanswered(self, account: ServiceId, id: GroupId) -> Result<u64, ProfileError> {
        let sql = "SELECT count(*) FROM chat_group WHERE inviter = ?1 AND id <> ?2";
        let mut statement = self.0.prepare_cached(sql)?;
        Ok(from_sql(statement.query_row((account.uuid(), id.0), |row| row.get(0))?))
    }

    /// Our key for a group, if there is one.
    pub(crate) fn group_key(self, id: GroupId) -> Result<Option<SenderKey>, ProfileError> {
        let mut statement = self.0.prepare_cached("SELECT key FROM chat_group WHERE id = ?1")?;
        let key: Option<Zeroizing<Vec<u8>>> = statement.query_row((id.0,), |row| {
            row.get::<_, Option<Vec<u8>>>(0).map(|key| key.map(Zeroizing::new))
        })?;
        let damaged = |_| ProfileError::Damaged { what: "group key" };
        key.map(|key| SenderKey::decode(&key).map_err(damaged)).transpose()
    }

    pub(crate) fn save_group_key(self, id: GroupId, key: &SenderKey) -> Result<(), ProfileError> {
        let mut statement =
            self.0.prepare_cached("UPDATE chat_group SET key = ?2 WHERE id = ?1")?;
        statement.execute((id.0, &key.encode()[..]))?;
        Ok(())
    }

    /// Our keys for the groups of an account are not used any more: a device of it may be somebody else's.
    pub(crate) fn rotate_groups_of(self, account: ServiceId) -> Result<(), ProfileError> {
        let groups = "(SELECT id FROM group_member WHERE account = ?1)";
        self.0.execute(
            &format!("UPDATE chat_group SET key = NULL WHERE id IN {groups}"),
            (account.uuid(),),
        )?;
        self.0.execute(
            &format!("UPDATE group_member SET told = 0 WHERE id IN {groups}"),
            (account.uuid(),),
        )?;
        Ok(())
    }

    /// No key of ours for a group is used any more.
    pub(crate) fn rotate_groups(self) -> Result<(), ProfileError> {
        self.0.execute("UPDATE chat_group SET key = NULL", ())?;
        self.0.execute("UPDATE group_member SET told = 0", ())?;
        Ok(())
    }

    /// Members who have not been sent our key.
    pub(crate) fn untold(self, id: GroupId) -> Result<Vec<ServiceId>, ProfileError> {
        let sql = "SELECT account FROM group_member WHERE id = ?1 AND told = 0 ORDER BY account";
        let mut statement = self.0.prepare_cached(sql)?;
        let rows = statement.query_map((id.0,), |row| Ok(ServiceId::aci(row.get(0)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(crate) fn mark_told(self, id: GroupId, account: ServiceId) -> Result<(), ProfileError> {
        let sql = "UPDATE group_member SET told = 1 WHERE id = ?1 AND account = ?2";
        self.0.prepare_cached(sql)?.execute((id.0, account.uuid()))?;
        Ok(())
    }

    /// An account has a device that has no key of ours.
    pub(crate) fn untell(self, account: ServiceId) -> Result<(), ProfileError> {
        let sql = "UPDATE group_member SET told = 0 WHERE account = ?1";
        self.0.prepare_cached(sql)?.execute((account.uuid(),))?;
        Ok(())
    }

    pub(crate) fn sender_key(
        self,
        sender: Address,
        distribution: &[u8; 16],
    ) -> Result<SenderKeyRecord, ProfileError> {
        let mut statement = self.0.prepare_cached(
            "SELECT record FROM sender_key WHERE account = ?1 AND device = ?2 AND distribution = ?3",
        )?;
        let key = (sender.service_id.uuid(), sender.device_id.get(), distribution);
        let record: Option<Vec<u8>> = statement.query_row(key, |row| row.get(0)).optional()?;
        let Some(record) = record.map(Zeroizing::new) else { return Ok(SenderKeyRecord::new()) };
        SenderKeyRecord::decode(&record).map_err(|_| ProfileError::Damaged { what: "sender key" })
    }

    pub(crate) fn save_sender_key(
        self,
        sender: Address,
        distribution: &[u8; 16],
        record: &SenderKeyRecord,
    ) -> Result<(), ProfileError> {
        let (account, device) = (sender.service_id.uuid(), sender.device_id.get());
        let record = record.encode();
        let columns = (account, device, distribution, &record[..]);
        // Not in one statement with the other: one that inserts nothing would use up a position all the same.
        let sql = "UPDATE sender_key SET record = ?4 WHERE account = ?1 AND device = ?2 AND distribution = ?3";
        if self.0.prepare_cached(sql)?.execute(columns)? > 0 {
            return Ok(());
        }
        let sql = "INSERT INTO sender_key (account, device, distribution, record) VALUES (?1, ?2, ?3, ?4)";
        self.0.prepare_cached(sql)?.execute(columns)?;
        self.0
            .prepare_cached(
                "DELETE FROM sender_key WHERE position = (SELECT min(position) FROM sender_key WHERE account =
                 (SELECT account FROM sender_key GROUP BY account ORDER BY count(*) DESC, account LIMIT 1))
                 AND (SELECT count(*) FROM sender_key) > ?1",
            )?
            .execute((SENDER_KEYS_MAX,))?;
        Ok(())
    }

    /// Forgets what an account's devices could have written to groups.
    pub(crate) fn delete_sender_keys(self, account: ServiceId) -> Result<(), ProfileError> {
        self.0.execute("DELETE FROM sender_key WHERE account = ?1", (account.uuid(),))?;
        Ok(())
    }

    /// Takes an encrypted group message over, for these members.
    pub(crate) fn insert_group_message(
        self,
        group: GroupId,
        message: &NewGroupMessage<'_>,
        recipients: &[ServiceId],
    ) -> Result<u64, ProfileError> {
        let sql = "INSERT INTO outbox (form, chat, submission_id, timestamp_ms, content) VALUES (4, ?1, ?2, ?3, ?4) RETURNING id";
        let NewGroupMessage { submission_id, timestamp_ms, content, digest, body } = message;
        let columns = (group.0, submission_id, to_sql(*timestamp_ms), content);
        let id: i64 = self.0.prepare_cached(sql)?.query_row(columns, |row| row.get(0))?;
        let sql = "INSERT INTO ciphertext (message, device, registration_id, kind, stream, sequence, digest, body)
                   VALUES (?1, 0, 0, 7, 0, 0, ?2, ?3)";
        self.0.prepare_cached(sql)?.execute((id, digest, body))?;
        let sql = "INSERT INTO recipient (message, account, state) VALUES (?1, ?2, 0)";
        let mut statement = self.0.prepare_cached(sql)?;
        for account in recipients {
            statement.execute((id, account.uuid()))?;
        }
        Ok(from_sql(id))
    }

    /// The oldest group message that waits.
    pub(crate) fn first_group_message(self) -> Result<Option<GroupMessage>, ProfileError> {
        let sql = "SELECT id, chat, submission_id, body FROM outbox JOIN ciphertext ON message = id
                   WHERE state < 2 AND chat IS NOT NULL ORDER BY id LIMIT 1";
        let columns = |row: &rusqlite::Row<'_>| {
            let id: i64 = row.get(0)?;
            Ok((from_sql(id), GroupId(row.get(1)?), row.get(2)?, row.get(3)?))
        };
        let found = self.0.prepare_cached(sql)?.query_row((), columns).optional()?;
        let Some((id, group, submission_id, body)) = found else { return Ok(None) };
        let waiting = self.waiting(id)?.ok_or(ProfileError::Damaged { what: "outbox" })?;
        Ok(Some(GroupMessage { waiting, group, submission_id, body }))
    }

    /// Whom the upload for many is yet to reach.
    pub(crate) fn recipients(self, message: u64) -> Result<Vec<ServiceId>, ProfileError> {
        let sql = "SELECT account FROM recipient WHERE message = ?1 AND state = 0 ORDER BY account";
        let mut statement = self.0.prepare_cached(sql)?;
        let rows =
            statement.query_map((to_sql(message),), |row| Ok(ServiceId::aci(row.get(0)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How a message reached a member; `None` when it was not for them.
    pub(crate) fn reached(
        self,
        message: u64,
        account: ServiceId,
    ) -> Result<Option<Reached>, ProfileError> {
        let sql = "SELECT state FROM recipient WHERE message = ?1 AND account = ?2";
        let mut statement = self.0.prepare_cached(sql)?;
        let state = statement.query_row((to_sql(message), account.uuid()), |row| row.get(0));
        Ok(state.optional()?.map(|state: u8| match state {
            0 => Reached::Pending,
            1 => Reached::Together,
            _ => Reached::Alone,
        }))
    }

    pub(crate) fn set_reached(
        self,
        message: u64,
        account: ServiceId,
        reached: Reached,
    ) -> Result<(), ProfileError> {
        let sql = "UPDATE recipient SET state = ?3 WHERE message = ?1 AND account = ?2";
        let columns = (to_sql(message), account.uuid(), reached as u8);
        self.0.prepare_cached(sql)?.execute(columns)?;
        Ok(())
    }

    /// Whether a device has not been sent a message again; from now on it has.
    pub(crate) fn answer_once(self, message: u64, device: Address) -> Result<bool, ProfileError> {
        let sql = "INSERT OR IGNORE INTO answered (message, account, device) VALUES (?1, ?2, ?3)";
        let columns = (to_sql(message), device.service_id.uuid(), device.device_id.get());
        Ok(self.0.prepare_cached(sql)?.execute(columns)? > 0)
    }

    /// Whether something waits for an account that was taken over before a message.
    pub(crate) fn waits_before(self, account: ServiceId, id: u64) -> Result<bool, ProfileError> {
        let sql = "SELECT 1 FROM outbox WHERE account = ?1 AND state < 2 AND id < ?2";
        Ok(self.0.prepare_cached(sql)?.exists((account.uuid(), to_sql(id)))?)
    }

    /// The group message with this digest: its id and group.
    pub(crate) fn group_message_of(
        self,
        digest: &Digest,
    ) -> Result<Option<(u64, GroupId)>, ProfileError> {
        let sql = "SELECT id, chat FROM ciphertext JOIN outbox ON message = id
                   WHERE ciphertext.device = 0 AND digest = ?1 AND state <> 2";
        let columns = |row: &rusqlite::Row<'_>| Ok((from_sql(row.get(0)?), GroupId(row.get(1)?)));
        Ok(self.0.prepare_cached(sql)?.query_row((digest,), columns).optional()?)
    }
}

/// What goes into the outbox for a group.
pub(crate) struct NewGroupMessage<'a> {
    pub(crate) submission_id: [u8; 16],
    pub(crate) timestamp_ms: u64,
    pub(crate) content: &'a [u8],
    pub(crate) digest: Digest,
    pub(crate) body: &'a [u8],
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Profile, Store};
    use tuckseal::DeviceId;

    const BOB: Address = Address::new(ServiceId::aci([2; 16]), DeviceId::PRIMARY);
    const EVE: Address = Address::new(ServiceId::aci([3; 16]), DeviceId::PRIMARY);

    fn record(distribution: [u8; 16]) -> SenderKeyRecord {
        let key = SenderKey::generate(distribution, &mut rand::rng());
        let mut record = SenderKeyRecord::new();
        record.process(&key.distribution_message());
        record
    }

    fn has(rows: Rows<'_>, sender: Address, distribution: [u8; 16]) -> bool {
        rows.sender_key(sender, &distribution).unwrap().chain_ids().count() > 0
    }

    #[test]
    fn a_key_stays_however_often_it_is_used_and_whatever_another_account_hands_out() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path(), Profile::Create).unwrap();
        let done = store.commit(|rows| {
            let (a, b, c, d) = ([1; 16], [2; 16], [3; 16], [4; 16]);
            rows.save_sender_key(BOB, &a, &record(a))?;
            let used = record(b);
            for _ in 0..=SENDER_KEYS_MAX {
                rows.save_sender_key(BOB, &b, &used)?;
            }
            rows.save_sender_key(BOB, &c, &record(c))?;
            assert!([a, b, c].iter().all(|it| has(rows, BOB, *it)));
            // As many as there is room for, and one more.
            let sql =
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
                       INSERT INTO sender_key (account, device, distribution, record)
                       SELECT ?1, 1, CAST(printf('%016d', i) AS BLOB), x'' FROM n";
            rows.0.execute(sql, (EVE.service_id.uuid(), SENDER_KEYS_MAX - 3))?;
            rows.save_sender_key(EVE, &a, &record(a))?;
            rows.save_sender_key(BOB, &d, &record(d))?;
            assert!([a, b, c, d].iter().all(|it| has(rows, BOB, *it)) && has(rows, EVE, a));
            let sql = "SELECT count(*) FROM sender_key";
            assert_eq!(rows.0.query_row(sql, (), |row| row.get::<_, i64>(0))?, SENDER_KEYS_MAX);
            let sql =
                "SELECT 1 FROM sender_key WHERE distribution = CAST(printf('%016d', ?1) AS BLOB)";
            let there = |i: u8| rows.0.prepare(sql)?.exists((i,));
            assert_eq!((there(1)?, there(2)?, there(3)?), (false, false, true), "the first go");
            Ok::<_, ProfileError>(())
        });
        done.unwrap();
    }
}
