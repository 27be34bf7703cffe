//! What was sent, for who asks for it again: kept for a time, the content sealed under a key that is not in
//! the database. A copy of the database alone does not show what was written.

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use rand_core::CryptoRng;
use std::fs::File;
use std::io::{Read, Write};
use tuckseal::{Address, ServiceId, Timestamp};
use zeroize::Zeroizing;

use super::{Digest, ProfileError, Rows, Waiting, from_sql, to_sql};

const KEY: usize = 32;
const NONCE: usize = 12;

/// The key of the log; it is in a file of its own.
#[derive(Clone)]
pub(crate) struct LogKey(Aes256Gcm);

impl std::fmt::Debug for LogKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogKey")
    }
}

impl LogKey {
    /// Reads the key, or draws one and writes it: what another key has sealed is then lost, as is meant.
    pub(super) fn of(mut file: &File, rng: &mut impl CryptoRng) -> std::io::Result<Self> {
        let mut key = Zeroizing::new(Vec::with_capacity(KEY));
        file.read_to_end(&mut key)?;
        if key.len() != KEY {
            key.resize(KEY, 0);
            rng.fill_bytes(&mut key);
            file.set_len(0)?;
            file.write_all(&key)?;
            file.sync_all()?;
        }
        let cipher = Aes256Gcm::new_from_slice(&key).map_err(std::io::Error::other)?;
        Ok(Self(cipher))
    }

    /// ```text
    /// nonce: 12 · AES-256-GCM of the content, with the message's id as associated data: n + 16
    /// ```
    fn seal(
        &self,
        id: u64,
        content: &[u8],
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE];
        rng.fill_bytes(&mut nonce);
        let aad = id.to_le_bytes();
        let sealed = self.0.encrypt(&nonce.into(), Payload { msg: content, aad: &aad }).ok()?;
        Some([&nonce[..], &sealed].concat())
    }

    fn open(&self, id: u64, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
        let aad = id.to_le_bytes();
        self.0.decrypt(&(*nonce).into(), Payload { msg: sealed, aad: &aad }).ok()
    }
}

/// Whether the relay is known to have a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// Perhaps: its answer has not come.
    OnItsWay,
    Relay,
}

/// A message in the log or on its way there, as one device got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Logged {
    pub(crate) id: u64,
    pub(crate) whereabouts: Whereabouts,
    pub(crate) stream: u64,
    pub(crate) sequence: u64,
    pub(crate) digest: Digest,
    pub(crate) resent: u32,
    /// Base key of the session that encrypted it.
    pub(crate) session: Option<[u8; 32]>,
}

impl Rows<'_> {
    /// The relay has a message: it goes into the log.
    pub(crate) fn log(
        self,
        key: &LogKey,
        message: &Waiting,
        now: Timestamp,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(), ProfileError> {
        let id = message.id;
        let Some(sealed) = key.seal(id, &message.content, rng) else {
            return self.delete_outbox(id);
        };
        let mut statement = self.0.prepare_cached(
            "UPDATE outbox SET state = 3, submission_id = NULL, sent_ms = ?2, content = ?3 WHERE id = ?1",
        )?;
        statement.execute((to_sql(id), to_sql(now.as_millis()), sealed))?;
        let mut statement =
            self.0.prepare_cached("UPDATE ciphertext SET body = NULL WHERE message = ?1")?;
        statement.execute((to_sql(id),))?;
        Ok(())
    }

    /// What a device got, or may have got, and we still have, oldest first.
    pub(crate) fn logged(self, address: Address) -> Result<Vec<Logged>, ProfileError> {
        let mut statement = self.0.prepare_cached(
            "SELECT id, stream, sequence, digest, resent, state, session FROM outbox JOIN ciphertext ON message = id
             WHERE account = ?1 AND state IN (1, 3) AND form IN (0, 3) AND ciphertext.device = ?2 ORDER BY id",
        )?;
        let columns = |row: &rusqlite::Row<'_>| {
            Ok(Logged {
                id: from_sql(row.get(0)?),
                stream: from_sql(row.get(1)?),
                sequence: from_sql(row.get(2)?),
                digest: row.get(3)?,
                resent: row.get(4)?,
                whereabouts: match row.get::<_, u8>(5)? {
                    3 => Whereabouts::Relay,
                    _ => Whereabouts::OnItsWay,
                },
                session: row.get(6)?,
            })
        };
        let key = (address.service_id.uuid(), address.device_id.get());
        Ok(statement.query_map(key, columns)?.collect::<Result<_, _>>()?)
    }

    /// A message waits again. `false` when the log's cannot be opened: then it is deleted.
    pub(crate) fn take_up_again(
        self,
        key: &LogKey,
        Logged { id, whereabouts, .. }: &Logged,
    ) -> Result<bool, ProfileError> {
        let id = *id;
        if *whereabouts == Whereabouts::OnItsWay {
            self.0
                .execute("UPDATE ciphertext SET body = NULL WHERE message = ?1", (to_sql(id),))?;
            let sql = "UPDATE outbox SET state = 0, submission_id = NULL WHERE id = ?1";
            self.0.execute(sql, (to_sql(id),))?;
            return Ok(true);
        }
        let mut statement = self.0.prepare_cached("SELECT content FROM outbox WHERE id = ?1")?;
        let sealed: Vec<u8> = statement.query_row((to_sql(id),), |row| row.get(0))?;
        let Some(content) = key.open(id, &sealed).map(Zeroizing::new) else {
            self.delete_outbox(id)?;
            return Ok(false);
        };
        let mut statement = self.0.prepare_cached(
            "UPDATE outbox SET state = 0, resent = resent + 1, content = ?2 WHERE id = ?1 AND state = 3",
        )?;
        statement.execute((to_sql(id), &content[..]))?;
        Ok(true)
    }

    /// The content of a message, from the log or on its way there.
    pub(crate) fn logged_content(
        self,
        key: &LogKey,
        id: u64,
    ) -> Result<Option<Vec<u8>>, ProfileError> {
        let mut statement =
            self.0.prepare_cached("SELECT state, content FROM outbox WHERE id = ?1")?;
        let (state, content): (u8, Vec<u8>) =
            statement.query_row((to_sql(id),), |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(if state == 3 { key.open(id, &content) } else { Some(content) })
    }

    /// A device gets a message under a new number when it is encrypted again.
    pub(crate) fn forget_number(self, id: u64, address: Address) -> Result<(), ProfileError> {
        let mut statement =
            self.0.prepare_cached("DELETE FROM ciphertext WHERE message = ?1 AND device = ?2")?;
        statement.execute((to_sql(id), address.device_id.get()))?;
        Ok(())
    }

    /// What waits for an account is encrypted again, under the numbers that it has.
    pub(crate) fn encrypt_again(self, account: ServiceId) -> Result<(), ProfileError> {
        self.0.execute(
            "UPDATE ciphertext SET body = NULL WHERE message IN (SELECT id FROM outbox WHERE account = ?1 AND state < 2)",
            (account.uuid(),),
        )?;
        self.mark_not_encrypted(account)
    }

    /// Deletes what went out before a time, and all but the newest so many.
    pub(crate) fn trim_log(self, before: Timestamp, newest: u32) -> Result<(), ProfileError> {
        self.0.execute(
            "DELETE FROM outbox WHERE state = 3 AND (sent_ms < ?1 OR id <=
             (SELECT id FROM outbox WHERE state = 3 ORDER BY id DESC LIMIT 1 OFFSET ?2))",
            (to_sql(before.as_millis()), newest),
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    #[test]
    fn the_log_opens_under_its_key_and_id_alone() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let file = tempfile::tempfile().unwrap();
        let key = LogKey::of(&file, &mut rng).unwrap();
        let sealed = key.seal(1, b"secret", &mut rng).unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        assert_eq!(key.open(1, &sealed).unwrap(), b"secret");
        assert_eq!(key.open(2, &sealed), None);
        let other = LogKey::of(&tempfile::tempfile().unwrap(), &mut rng).unwrap();
        assert_eq!(other.open(1, &sealed), None);
        for n in 0..sealed.len() {
            assert_eq!(key.open(1, &sealed[..n]), None);
        }
    }
}
