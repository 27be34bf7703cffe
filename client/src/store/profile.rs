//! Rows about ourselves: identity, account, token, sender certificate.

use rusqlite::{OptionalExtension, Row};
use tuckseal::{
    Address, DeviceId, IdentityKey, IdentityKeyPair, LocalParty, PrivateKey, PublicKey, ServiceId,
    Timestamp,
};
use zeroize::Zeroizing;

use super::{ProfileError, Rows};

/// What is drawn once, before the server hears of us.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    /// Base address, as `https://host` or `http://host:port`.
    pub(crate) server: String,
    /// The name that was asked for.
    pub(crate) name: String,
    pub(crate) identity: IdentityKeyPair,
    /// 1..=0x3FFC
    pub(crate) registration_id: u32,
    /// Whoever shows it may send to us without saying who they are.
    pub(crate) access_key: [u8; 16],
    /// Not there before the registration is through.
    pub(crate) account: Option<Account>,
}

/// What the server gave us, and the trust root that we hold it to.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) address: Address,
    pub(crate) token: Zeroizing<[u8; 32]>,
    pub(crate) trust_root: PublicKey,
}

impl Own {
    pub(crate) fn local_party(&self, address: Address) -> LocalParty {
        LocalParty {
            identity: self.identity.clone(),
            registration_id: self.registration_id,
            address,
        }
    }
}

impl Rows<'_> {
    pub(crate) fn own(self) -> Result<Option<Own>, ProfileError> {
        let mut statement = self.0.prepare_cached(
            "SELECT server, name, identity, registration_id, access_key, account, device, token, trust_root FROM profile",
        )?;
        statement.query_row((), |row| Ok(read_own(row))).optional()?.transpose()
    }

    pub(crate) fn insert_own(self, own: &Own) -> Result<(), ProfileError> {
        self.0.execute(
            "INSERT INTO profile (only, server, name, identity, registration_id, access_key) VALUES (1, ?1, ?2, ?3, ?4, ?5)",
            (&own.server, &own.name, &own.identity.private_key().to_bytes()[..], own.registration_id, own.access_key),
        )?;
        Ok(())
    }

    /// Another name or server for a registration that is not through yet.
    pub(crate) fn rename_own(self, server: &str, name: &str) -> Result<(), ProfileError> {
        self.0.execute(
            "UPDATE profile SET server = ?1, name = ?2 WHERE account IS NULL",
            (server, name),
        )?;
        Ok(())
    }

    /// What was drawn for a registration that never came through.
    pub(crate) fn forget_begun(self) -> Result<(), ProfileError> {
        self.0.execute_batch(
            "DELETE FROM one_time_prekey; DELETE FROM kem_prekey; DELETE FROM signed_prekey; DELETE FROM profile",
        )?;
        Ok(())
    }

    pub(crate) fn set_account(self, account: &Account) -> Result<(), ProfileError> {
        let Account { address, token, trust_root } = account;
        self.0.execute(
            "UPDATE profile SET account = ?1, device = ?2, token = ?3, trust_root = ?4",
            (
                address.service_id.uuid(),
                address.device_id.get(),
                &token[..],
                trust_root.serialize(),
            ),
        )?;
        Ok(())
    }

    pub(crate) fn own_account(self) -> Result<ServiceId, ProfileError> {
        let sql = "SELECT account FROM profile";
        let account: Option<[u8; 16]> =
            self.0.prepare_cached(sql)?.query_row((), |row| row.get(0))?;
        account.map(ServiceId::aci).ok_or(ProfileError::Damaged { what: "account" })
    }

    /// A time for a message of ours: now, and later than any before, since it names the message.
    pub(crate) fn timestamp(self, now: Timestamp) -> Result<Timestamp, ProfileError> {
        let sql =
            "UPDATE profile SET last_sent_ms = max(last_sent_ms + 1, ?1) RETURNING last_sent_ms";
        let now = super::to_sql(now.as_millis());
        let ms: i64 = self.0.prepare_cached(sql)?.query_row((now,), |row| row.get(0))?;
        Ok(Timestamp::from_millis(super::from_sql(ms)))
    }

    /// Up to this time another device of ours may come that we do not hear of.
    pub(crate) fn expect_device(self, until: Timestamp) -> Result<(), ProfileError> {
        let sql = "UPDATE profile SET unheard_until_ms = max(ifnull(unheard_until_ms, 0), ?1)";
        self.0.execute(sql, (super::to_sql(until.as_millis()),))?;
        Ok(())
    }

    /// What [`Rows::expect_device`] was told, if it is not settled yet.
    pub(crate) fn device_expected(self) -> Result<Option<Timestamp>, ProfileError> {
        let sql = "SELECT unheard_until_ms FROM profile";
        let until: Option<i64> = self.0.prepare_cached(sql)?.query_row((), |row| row.get(0))?;
        Ok(until.map(|ms| Timestamp::from_millis(super::from_sql(ms))))
    }

    /// Whether another device of ours is known, or expected.
    pub(crate) fn may_have_others(self, us: ServiceId) -> Result<bool, ProfileError> {
        let sql = "SELECT 1 FROM device WHERE account = ?1
                   UNION ALL SELECT 1 FROM profile WHERE unheard_until_ms IS NOT NULL";
        Ok(self.0.prepare_cached(sql)?.exists((us.uuid(),))?)
    }

    /// We have heard of all that may have come up to this time.
    pub(crate) fn no_device_expected(self, before: Timestamp) -> Result<(), ProfileError> {
        let sql = "UPDATE profile SET unheard_until_ms = NULL WHERE unheard_until_ms < ?1";
        self.0.prepare_cached(sql)?.execute((super::to_sql(before.as_millis()),))?;
        Ok(())
    }

    /// The encoded sender certificate, if one was fetched.
    pub(crate) fn certificate(self) -> Result<Option<Vec<u8>>, ProfileError> {
        Ok(self.0.query_row("SELECT certificate FROM profile", (), |row| row.get(0))?)
    }

    pub(crate) fn set_certificate(self, encoded: &[u8]) -> Result<(), ProfileError> {
        self.0.execute("UPDATE profile SET certificate = ?1", (encoded,))?;
        Ok(())
    }
}

fn read_own(row: &Row<'_>) -> Result<Own, ProfileError> {
    let identity: Zeroizing<Vec<u8>> = row.get(2).map(Zeroizing::new)?;
    let identity = PrivateKey::from_bytes(&identity)
        .map_err(|_| ProfileError::Damaged { what: "identity" })?;
    let account: Option<[u8; 16]> = row.get(5)?;
    let account = account.map(|account| read_account(account, row)).transpose()?;
    Ok(Own {
        server: row.get(0)?,
        name: row.get(1)?,
        identity: identity.into(),
        registration_id: row.get(3)?,
        access_key: row.get(4)?,
        account,
    })
}

fn read_account(account: [u8; 16], row: &Row<'_>) -> Result<Account, ProfileError> {
    let damaged = ProfileError::Damaged { what: "account" };
    let device = DeviceId::new(row.get(6)?).ok_or(damaged)?;
    let root: Vec<u8> = row.get(8)?;
    Ok(Account {
        address: Address::new(ServiceId::aci(account), device),
        token: Zeroizing::new(row.get(7)?),
        trust_root: *read_identity(&root)?.public_key(),
    })
}

/// 33 bytes that we wrote ourselves.
pub(super) fn read_identity(bytes: &[u8]) -> Result<IdentityKey, ProfileError> {
    IdentityKey::decode(bytes).map_err(|_| ProfileError::Damaged { what: "public key" })
}
