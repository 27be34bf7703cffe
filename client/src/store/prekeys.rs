//! Rows of our prekeys. An id is never given twice; a key is saved before it is published.

use rusqlite::OptionalExtension;
use tuckseal::{
    KemKeyPair, KemPreKey, KemPreKeyId, KemSecretKey, PreKey, PreKeyId, PrivateKey, PublicKey,
    SignedPreKey, SignedPreKeyId, Timestamp,
};
use zeroize::Zeroizing;

use super::{ProfileError, Rows, from_sql, to_sql};

/// More keys than this nobody makes: whatever a server says, ids are left.
const SEEN_MAX: u32 = u32::MAX / 2;

/// How often a KEM prekey opens a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KemUse {
    OneTime = 0,
    LastResort = 1,
}

/// The largest ids of prekeys of ours that the server has seen, one for each use: what is above is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct HighWater {
    pub(crate) one_time: u32,
    pub(crate) one_time_kem: u32,
    pub(crate) signed: u32,
    pub(crate) last_resort: u32,
}

fn private_key(bytes: Vec<u8>) -> Result<PrivateKey, ProfileError> {
    let bytes = Zeroizing::new(bytes);
    PrivateKey::from_bytes(&bytes).map_err(|_| ProfileError::Damaged { what: "prekey" })
}

type KemColumns = (u32, Vec<u8>, [u8; 64], i64);

fn kem_prekey((id, secret, signature, created): KemColumns) -> Result<KemPreKey, ProfileError> {
    let secret = Zeroizing::new(secret);
    let secret =
        KemSecretKey::decode(&secret).map_err(|_| ProfileError::Damaged { what: "KEM prekey" })?;
    Ok(KemPreKey {
        id: KemPreKeyId(id),
        pair: KemKeyPair::from_secret(secret),
        signature,
        created: Timestamp::from_millis(from_sql(created)),
    })
}

impl Rows<'_> {
    /// The next ids: the first of `one_time` many, of `kem` many, of `signed` many.
    pub(crate) fn take_ids(
        self,
        one_time: u32,
        kem: u32,
        signed: u32,
    ) -> Result<(u32, u32, u32), ProfileError> {
        let mut statement = self.0.prepare_cached(
            "UPDATE profile SET next_one_time = next_one_time + ?1, next_kem = next_kem + ?2, next_signed = next_signed + ?3
             RETURNING next_one_time - ?1, next_kem - ?2, next_signed - ?3",
        )?;
        Ok(statement.query_row((one_time, kem, signed), |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?)
    }

    /// The ids that the next keys get: one-time EC, KEM, signed.
    pub(crate) fn next_ids(self) -> Result<(u32, u32, u32), ProfileError> {
        let sql = "SELECT next_one_time, next_kem, next_signed FROM profile";
        Ok(self.0.query_row(sql, (), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?)
    }

    /// Ids that the server has seen are not given any more, whatever we remember.
    pub(crate) fn raise_ids(self, seen: HighWater) -> Result<(), ProfileError> {
        let kem = seen.one_time_kem.max(seen.last_resort);
        self.0.execute(
            "UPDATE profile SET next_one_time = max(next_one_time, ?1 + 1), next_kem = max(next_kem, ?2 + 1), next_signed = max(next_signed, ?3 + 1)",
            (seen.one_time.min(SEEN_MAX), kem.min(SEEN_MAX), seen.signed.min(SEEN_MAX)),
        )?;
        Ok(())
    }

    pub(crate) fn insert_one_time(self, prekey: &PreKey) -> Result<(), ProfileError> {
        let private = prekey.pair.private().to_bytes();
        self.0
            .prepare_cached("INSERT INTO one_time_prekey (id, private) VALUES (?1, ?2)")?
            .execute((prekey.id.0, &private[..]))?;
        Ok(())
    }

    pub(crate) fn insert_signed(self, prekey: &SignedPreKey) -> Result<(), ProfileError> {
        let private = prekey.pair.private().to_bytes();
        self.0.execute(
            "INSERT INTO signed_prekey (id, private, signature, created_ms) VALUES (?1, ?2, ?3, ?4)",
            (prekey.id.0, &private[..], prekey.signature, to_sql(prekey.created.as_millis())),
        )?;
        Ok(())
    }

    pub(crate) fn insert_kem(self, prekey: &KemPreKey, usage: KemUse) -> Result<(), ProfileError> {
        let secret = prekey.pair.secret().serialize();
        self.0
            .prepare_cached("INSERT INTO kem_prekey (id, secret, signature, created_ms, use) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute((prekey.id.0, &secret[..], prekey.signature, to_sql(prekey.created.as_millis()), usage as u8))?;
        Ok(())
    }

    pub(crate) fn one_time(self, id: PreKeyId) -> Result<Option<PreKey>, ProfileError> {
        let mut statement =
            self.0.prepare_cached("SELECT private FROM one_time_prekey WHERE id = ?1")?;
        let private: Option<Vec<u8>> = statement.query_row((id.0,), |row| row.get(0)).optional()?;
        private.map(|private| Ok(PreKey { id, pair: private_key(private)?.into() })).transpose()
    }

    pub(crate) fn signed(self, id: SignedPreKeyId) -> Result<Option<SignedPreKey>, ProfileError> {
        self.signed_where("id = ?1", id.0)
    }

    /// The one that peers get.
    pub(crate) fn current_signed(self) -> Result<Option<SignedPreKey>, ProfileError> {
        self.signed_where("id >= ?1 ORDER BY id DESC LIMIT 1", 0)
    }

    fn signed_where(self, condition: &str, id: u32) -> Result<Option<SignedPreKey>, ProfileError> {
        let sql = format!(
            "SELECT id, private, signature, created_ms FROM signed_prekey WHERE {condition}"
        );
        let mut statement = self.0.prepare_cached(&sql)?;
        let columns =
            |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        let found: Option<(u32, Vec<u8>, [u8; 64], i64)> =
            statement.query_row((id,), columns).optional()?;
        found
            .map(|(id, private, signature, created)| {
                Ok(SignedPreKey {
                    id: SignedPreKeyId(id),
                    pair: private_key(private)?.into(),
                    signature,
                    created: Timestamp::from_millis(from_sql(created)),
                })
            })
            .transpose()
    }

    pub(crate) fn kem(self, id: KemPreKeyId) -> Result<Option<(KemPreKey, KemUse)>, ProfileError> {
        let mut statement = self.0.prepare_cached(
            "SELECT id, secret, signature, created_ms, use FROM kem_prekey WHERE id = ?1",
        )?;
        let columns = |row: &rusqlite::Row<'_>| {
            let usage =
                if row.get::<_, u8>(4)? == 0 { KemUse::OneTime } else { KemUse::LastResort };
            Ok(((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?), usage))
        };
        let found: Option<(KemColumns, KemUse)> =
            statement.query_row((id.0,), columns).optional()?;
        found.map(|(columns, usage)| Ok((kem_prekey(columns)?, usage))).transpose()
    }

    /// The one that peers get when the one-time keys are used up.
    pub(crate) fn current_last_resort(self) -> Result<Option<KemPreKey>, ProfileError> {
        let mut statement = self.0.prepare_cached(
            "SELECT id, secret, signature, created_ms FROM kem_prekey WHERE use = 1 ORDER BY id DESC LIMIT 1",
        )?;
        let columns =
            |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        let found: Option<KemColumns> = statement.query_row((), columns).optional()?;
        found.map(kem_prekey).transpose()
    }

    /// One-time keys that the server has not confirmed, oldest first, at most `limit` of each kind.
    pub(crate) fn to_upload(
        self,
        limit: u32,
    ) -> Result<(Vec<PreKey>, Vec<KemPreKey>), ProfileError> {
        let mut statement = self.0.prepare_cached(
            "SELECT id, private FROM one_time_prekey WHERE state = 0 ORDER BY id LIMIT ?1",
        )?;
        let rows = statement.query_map((limit,), |row| Ok((row.get(0)?, row.get(1)?)))?;
        let one_time = rows
            .map(|row| {
                let (id, private) = row?;
                Ok(PreKey { id: PreKeyId(id), pair: private_key(private)?.into() })
            })
            .collect::<Result<_, ProfileError>>()?;
        let mut statement = self.0.prepare_cached(
            "SELECT id, secret, signature, created_ms FROM kem_prekey WHERE state = 0 AND use = 0 ORDER BY id LIMIT ?1",
        )?;
        let rows = statement
            .query_map((limit,), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
        let kem = rows.map(|row| kem_prekey(row?)).collect::<Result<_, ProfileError>>()?;
        Ok((one_time, kem))
    }

    /// The server has all one-time keys up to these ids, or will never take them.
    pub(crate) fn mark_uploaded(
        self,
        one_time: Option<PreKeyId>,
        kem: Option<KemPreKeyId>,
    ) -> Result<(), ProfileError> {
        self.0.execute(
            "UPDATE one_time_prekey SET state = 1 WHERE state = 0 AND id <= ?1",
            (one_time.map(|id| id.0),),
        )?;
        self.0.execute(
            "UPDATE kem_prekey SET state = 1 WHERE state = 0 AND id <= ?1",
            (kem.map(|id| id.0),),
        )?;
        Ok(())
    }

    pub(crate) fn delete_one_time(self, id: PreKeyId) -> Result<(), ProfileError> {
        self.0.execute("DELETE FROM one_time_prekey WHERE id = ?1", (id.0,))?;
        Ok(())
    }

    pub(crate) fn delete_kem(self, id: KemPreKeyId) -> Result<(), ProfileError> {
        self.0.execute("DELETE FROM kem_prekey WHERE id = ?1", (id.0,))?;
        Ok(())
    }

    pub(crate) fn base_key_seen(
        self,
        kem: KemPreKeyId,
        signed: SignedPreKeyId,
        base_key: &PublicKey,
    ) -> Result<bool, ProfileError> {
        let mut statement = self.0.prepare_cached(
            "SELECT 1 FROM base_key_seen WHERE kem = ?1 AND signed = ?2 AND base_key = ?3",
        )?;
        Ok(statement.exists((kem.0, signed.0, base_key.serialize()))?)
    }

    pub(crate) fn remember_base_key(
        self,
        kem: KemPreKeyId,
        signed: SignedPreKeyId,
        base_key: &PublicKey,
    ) -> Result<(), ProfileError> {
        self.0.execute(
            "INSERT OR IGNORE INTO base_key_seen VALUES (?1, ?2, ?3)",
            (kem.0, signed.0, base_key.serialize()),
        )?;
        Ok(())
    }

    /// Deletes signed and last-resort keys that were replaced before then: their successors are as old.
    pub(crate) fn delete_replaced(self, before: Timestamp) -> Result<(), ProfileError> {
        let before = (to_sql(before.as_millis()),);
        self.0.execute(
            "DELETE FROM signed_prekey WHERE id < (SELECT max(id) FROM signed_prekey WHERE created_ms < ?1)",
            before,
        )?;
        self.0.execute(
            "DELETE FROM kem_prekey WHERE use = 1 AND id < (SELECT max(id) FROM kem_prekey WHERE use = 1 AND created_ms < ?1)",
            before,
        )?;
        Ok(())
    }
}
