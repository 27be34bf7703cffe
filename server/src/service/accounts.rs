//! Registration with proof of the identity key, device tokens, access keys, names.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use hmac::{Hmac, KeyInit, Mac};
use prost::Message;
use rand::Rng;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tuckseal::PublicKey;
use tuckseal::service::{AccountAnswer, Challenge, Registered, Registration, SignedRegistration};
use zeroize::Zeroizing;

use super::error::ServiceError;
use super::gate::RegistrationGate;
use super::hooks::Hooks;
use super::keys::{Fixed, checked_upload};
use super::limits::Budget;
use super::{millis, now_ms, today};
use crate::bus::{Bus, Notice};
use crate::config::Limits;
use crate::identity::ServerIdentity;
use crate::storage::{
    AccountId, AccountRow, DeviceRow, MailboxId, RegisterAnswer, Registering, Store,
};

/// Before the signed bytes of a registration.
const REGISTRATION_LABEL: &[u8] = b"tuckseal-registration-v1";
/// The largest registration id.
const REGISTRATION_ID_MAX: u16 = 0x3FFC;
const USERNAME_MAX: usize = 32;
/// nonce (16) || expiry in milliseconds (8) || HMAC-SHA-256 (32)
const CHALLENGE_LEN: usize = 56;
const SIGNED_LEN: usize = 24;
/// The device that a registration makes.
pub(super) const FIRST_DEVICE: u8 = 1;

/// A device that has shown its token.
#[derive(Clone)]
pub struct Caller {
    /// Its account.
    pub account: AccountId,
    /// The number of that in the store.
    pub account_row: i64,
    /// 1..127.
    pub device: u8,
    /// Its mailbox.
    pub mailbox: MailboxId,
    /// Of its account, 33 bytes.
    pub identity_key: [u8; 33],
}

/// Registration, tokens, names.
pub struct Accounts {
    store: Arc<dyn Store>,
    bus: Arc<dyn Bus>,
    gate: Arc<dyn RegistrationGate>,
    hooks: Hooks,
    challenge_secret: Zeroizing<[u8; 32]>,
    challenge_ttl_secs: u64,
    one_time_prekeys: u64,
    lookups: Budget<MailboxId>,
}

impl Accounts {
    pub(super) fn new(
        (store, bus): (Arc<dyn Store>, Arc<dyn Bus>),
        (gate, hooks): (Arc<dyn RegistrationGate>, Hooks),
        identity: &ServerIdentity,
        limits: &Limits,
    ) -> Self {
        Self {
            store,
            bus,
            gate,
            hooks,
            challenge_secret: identity.challenge_secret(),
            challenge_ttl_secs: limits.challenge_ttl_secs,
            one_time_prekeys: limits.one_time_prekeys,
            lookups: Budget::new(limits.lookup_burst, limits.lookup_per_hour),
        }
    }

    /// A new challenge. Nothing is kept of it.
    #[must_use]
    pub fn challenge(&self) -> Challenge {
        let mut nonce = [0; 16];
        rand::rng().fill_bytes(&mut nonce);
        let mut challenge = BytesMut::with_capacity(CHALLENGE_LEN);
        challenge.put_slice(&nonce);
        challenge.put_i64(now_ms().saturating_add(millis(self.challenge_ttl_secs)));
        let mac = self.mac(&challenge);
        challenge.put_slice(&mac);
        let mut challenge = Challenge {
            challenge: challenge.freeze(),
            expires_in_secs: self.challenge_ttl_secs,
            work_bits: 0,
        };
        self.gate.ask(&mut challenge);
        challenge
    }

    /// Makes or renews the account of the name, once the signature proves possession of the identity key. Further devices of an
    /// account that is renewed stay as they are: whoever wants to be rid of one removes it.
    ///
    /// Drive it to its end: dropped after the commit, it leaves the stream of the old token open.
    ///
    /// # Errors
    /// [`ServiceError::NotAdmitted`], [`ServiceError::NotProven`], [`ServiceError::NameTaken`], [`ServiceError::Invalid`], the
    /// hook's or the store's.
    pub async fn register(&self, signed: SignedRegistration) -> Result<Registered, ServiceError> {
        let registration = Registration::decode(signed.registration.clone())
            .map_err(|_| ServiceError::Invalid("the registration is not a Registration message"))?;
        if !self.is_fresh(&registration.challenge) {
            return Err(ServiceError::NotProven);
        }
        self.gate.admit(&signed.registration, &signed.work)?;
        let max_waiting = self.one_time_prekeys;
        let fresh_account = fresh_account();
        let mut token = Zeroizing::new([0; 32]);
        rand::rng().fill_bytes(&mut *token);
        let token_hash = sha256(&*token);
        // Up to 200 signatures: not on a thread that serves sockets.
        let checked = tokio::task::spawn_blocking(move || {
            check(&signed, registration, (fresh_account, token_hash, max_waiting))
        });
        let registering = checked
            .await
            .map_err(|_| ServiceError::Invalid("the registration cannot be checked"))??;
        self.hooks.registration(&registering.username).await?;
        match self.store.register(registering).await? {
            RegisterAnswer::NameTaken => Err(ServiceError::NameTaken),
            RegisterAnswer::As(account, mailbox, epoch) => {
                // A stream opened with the token of before must not go on. Other nodes may hear of it late,
                // when one of the new token is there: they are told which are older.
                self.bus.displace(mailbox, i64::MAX);
                self.bus.elsewhere(None, Notice::Displaced(mailbox, epoch));
                Ok(Registered {
                    account: Bytes::copy_from_slice(&account.0),
                    device_id: FIRST_DEVICE.into(),
                    token: Bytes::copy_from_slice(&*token),
                })
            }
        }
    }

    /// The device of a token.
    ///
    /// # Errors
    /// [`ServiceError::Unauthorised`], whichever part is wrong, or the store's.
    pub async fn caller(
        &self,
        account: AccountId,
        device: u8,
        token: &[u8; 32],
    ) -> Result<Caller, ServiceError> {
        let found = self.store.device(account, device).await?;
        let hash = found.as_ref().map_or([0; 32], |row| row.token_hash);
        let equal: bool = sha256(token).ct_eq(&hash).into();
        let row = found.filter(|_| equal).ok_or(ServiceError::Unauthorised)?;
        let DeviceRow { mailbox, account_row, identity_key, .. } = row;
        Ok(Caller { account, account_row, device, mailbox, identity_key })
    }

    /// The account, if this is its access key.
    ///
    /// # Errors
    /// [`ServiceError::Unauthorised`], the same for an unknown account and a wrong key, or the store's.
    pub async fn by_access_key(
        &self,
        account: AccountId,
        key: &[u8; 16],
    ) -> Result<AccountRow, ServiceError> {
        let found = self.store.account(account).await?;
        let hash = found.as_ref().map_or([0; 32], |row| row.access_hash);
        let equal: bool = sha256(key).ct_eq(&hash).into();
        found.filter(|_| equal).ok_or(ServiceError::Unauthorised)
    }

    /// The account, for a caller with a token.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`] or the store's.
    pub async fn by_id(&self, account: AccountId) -> Result<AccountRow, ServiceError> {
        self.store.account(account).await?.ok_or(ServiceError::NotFound("account"))
    }

    /// The account of a name.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], [`ServiceError::TooMany`] or the store's.
    pub async fn by_name(
        &self,
        caller: &Caller,
        name: String,
    ) -> Result<AccountAnswer, ServiceError> {
        self.lookups.spend(&caller.mailbox).map_err(ServiceError::TooMany)?;
        if !is_username(&name) {
            return Err(ServiceError::NotFound("name"));
        }
        let account =
            self.store.account_of_name(name).await?.ok_or(ServiceError::NotFound("name"))?;
        Ok(AccountAnswer { account: Bytes::copy_from_slice(&account.0) })
    }

    fn is_fresh(&self, challenge: &[u8]) -> bool {
        let Some((signed, mac)) = challenge.split_at_checked(SIGNED_LEN) else { return false };
        let expiry = signed.last_chunk().map_or(0, |bytes| i64::from_be_bytes(*bytes));
        bool::from(self.mac(signed).ct_eq(mac)) && now_ms() < expiry
    }

    fn mac(&self, message: &[u8]) -> [u8; 32] {
        // HMAC takes a key of any length; 32 bytes never fail.
        let keyed = Hmac::<Sha256>::new_from_slice(&*self.challenge_secret);
        keyed
            .map(|keyed| keyed.chain_update(message).finalize().into_bytes().into())
            .unwrap_or_default()
    }
}

fn check(
    signed: &SignedRegistration,
    registration: Registration,
    (fresh_account, token_hash, max_waiting): (AccountId, [u8; 32], u64),
) -> Result<Registering, ServiceError> {
    let identity_key: [u8; 33] = registration
        .identity_key
        .as_ref()
        .try_into()
        .map_err(|_| ServiceError::Invalid("identity_key must have 33 bytes"))?;
    let verifier = PublicKey::decode(&identity_key)
        .map_err(|_| ServiceError::Invalid("identity_key must be a public key of type 5"))?;
    let message = [REGISTRATION_LABEL, &signed.registration].concat();
    verifier.verify_signature(&message, &signed.signature).map_err(|_| ServiceError::NotProven)?;
    let registration_id = registration_id(registration.registration_id)?;
    if !is_username(&registration.username) {
        return Err(ServiceError::Invalid(
            "username must be 1 to 32 of a-z 0-9 _ . - and begin with a letter",
        ));
    }
    let access_key: [u8; 16] = registration
        .access_key
        .as_ref()
        .try_into()
        .map_err(|_| ServiceError::Invalid("access_key must have 16 bytes"))?;
    let upload = registration.keys.ok_or(ServiceError::Invalid("keys are missing"))?;
    let keys = checked_upload(upload, &verifier, Fixed::Required, max_waiting)?;
    Ok(Registering {
        fresh_account,
        username: registration.username,
        identity_key,
        access_hash: sha256(&access_key),
        device: FIRST_DEVICE,
        registration_id,
        token_hash,
        keys,
        day: today(),
    })
}

pub(super) fn registration_id(id: u32) -> Result<u16, ServiceError> {
    let id = u16::try_from(id).ok().filter(|id| (1..=REGISTRATION_ID_MAX).contains(id));
    id.ok_or(ServiceError::Invalid("registration_id must be from 1 to 16380"))
}

fn is_username(name: &str) -> bool {
    let allowed =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '.' | '-');
    name.len() <= USERNAME_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(allowed)
}

fn fresh_account() -> AccountId {
    let mut random = [0; 16];
    rand::rng().fill_bytes(&mut random);
    AccountId(*uuid::Builder::from_random_bytes(random).as_uuid().as_bytes())
}

/// SHA-256: enough for tokens and keys of 128 and more random bits.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_lowercase_and_begin_with_a_letter() {
        for good in ["a", "alice", "a_b.c-9", &"x".repeat(32)] {
            assert!(is_username(good), "{good}");
        }
        for bad in ["", "9a", "_a", "Alice", "a b", "ä", "a\0", &"x".repeat(33)] {
            assert!(!is_username(bad), "{bad}");
        }
    }
}
