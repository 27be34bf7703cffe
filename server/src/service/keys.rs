//! Prekeys: what is accepted, what is given out and how often.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use sha2::{Digest, Sha256};
use tuckseal::service::{Bundles, DeviceBundle, KeyCounts, KeysUpload, PublicPreKey};
use tuckseal::{KemPublicKey, PublicKey};

use super::accounts::Caller;
use super::error::ServiceError;
use super::limits::Budget;
use super::push::Push;
use super::{millis, now_ms};
use crate::bus::{Bus, Notice, Wake};
use crate::config::Limits;
use crate::metrics;
use crate::storage::{
    AccountRow, Fetch, Keep, KemUse, KeySet, KeyState, MailboxId, MakeAnswer, Pace, PreKeyRow,
    PutKeys, Store, StoreError, Taken, TakenDevice, Waiting,
};

/// One-time prekeys of one kind in one upload.
const BATCH: usize = 100;
const CURVE_LEN: usize = 33;
const KEM_LEN: usize = 1569;

/// Who fetches bundles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fetcher {
    /// A device with its token.
    Device(MailboxId),
    /// Somebody with the access key of this account; all who have it are one.
    KeyHolder(i64),
}

/// Whose bundles.
#[derive(Debug, Clone, Copy)]
pub enum Wanted {
    /// One device, 1..127.
    One(u8),
    /// All devices of the account.
    All,
}

/// Key distribution.
pub struct Keys {
    store: Arc<dyn Store>,
    bus: Arc<dyn Bus>,
    push: Push,
    low: u32,
    one_time_prekeys: u64,
    callers: Budget<Fetcher>,
    pace: Pace,
    replay_ttl_ms: i64,
}

impl Keys {
    pub(super) fn new(
        store: Arc<dyn Store>,
        bus: Arc<dyn Bus>,
        push: Push,
        limits: &Limits,
    ) -> Self {
        let hour_ms = 60 * 60 * 1000;
        let period_ms = hour_ms / limits.fetch_target_per_hour.max(1);
        Self {
            store,
            bus,
            push,
            low: u32::try_from(limits.prekeys_low).unwrap_or(u32::MAX),
            one_time_prekeys: limits.one_time_prekeys,
            callers: Budget::new(limits.fetch_caller_burst, limits.fetch_caller_per_hour),
            pace: Pace {
                burst: u32::try_from(limits.fetch_target_burst).unwrap_or(u32::MAX),
                period_ms: i64::try_from(period_ms).unwrap_or(i64::MAX),
            },
            replay_ttl_ms: millis(limits.replay_ttl_secs),
        }
    }

    /// Stores an upload, whole or not at all.
    ///
    /// # Errors
    /// [`ServiceError::Invalid`], [`ServiceError::KeyCollision`], [`ServiceError::TooManyKeys`] or the store's.
    pub async fn upload(
        &self,
        caller: &Caller,
        upload: KeysUpload,
    ) -> Result<KeyCounts, ServiceError> {
        let (identity_key, max_waiting) = (caller.identity_key, self.one_time_prekeys);
        // Up to 102 signatures: not on a thread that serves sockets.
        let checked = tokio::task::spawn_blocking(move || {
            let verifier = PublicKey::decode(&identity_key).map_err(|_| StoreError::Damaged)?;
            checked_upload(upload, &verifier, Fixed::Optional, max_waiting)
        });
        let keys =
            checked.await.map_err(|_| ServiceError::Invalid("the upload cannot be checked"))??;
        match self.store.put_keys(caller.mailbox, keys).await? {
            PutKeys::Stored(state) => Ok(counts(&state, &caller.identity_key)),
            PutKeys::Collision(collision) => Err(ServiceError::KeyCollision(collision)),
            PutKeys::TooMany => Err(ServiceError::TooManyKeys),
            PutKeys::NoDevice => Err(ServiceError::Unauthorised),
        }
    }

    /// What the device has left.
    ///
    /// # Errors
    /// The store's.
    pub async fn counts(&self, caller: &Caller) -> Result<KeyCounts, ServiceError> {
        let state =
            self.store.key_state(caller.mailbox).await?.ok_or(ServiceError::NotFound("device"))?;
        Ok(counts(&state, &caller.identity_key))
    }

    /// Whether the device should upload more.
    #[must_use]
    pub fn is_low(&self, counts: &KeyCounts) -> bool {
        counts.one_time < self.low || counts.one_time_kem < self.low
    }

    /// Bundles of the account, encoded. Those who have its access key share a budget, so that none of them may be refused for what
    /// another has used up: then one-time prekeys are left out, as when the budget of the device is used up. With a request id, a repetition gets the same bytes and takes nothing, at whatever
    /// node.
    ///
    /// # Errors
    /// [`ServiceError::TooMany`], [`ServiceError::NotFound`] or the store's.
    pub async fn fetch(
        &self,
        fetcher: Fetcher,
        target: AccountRow,
        wanted: Wanted,
        request: Option<[u8; 16]>,
    ) -> Result<Bytes, ServiceError> {
        let pace = self.pace_for(fetcher)?;
        let account_row = target.row;
        let answer: MakeAnswer = Arc::new(move |taken: &[TakenDevice]| bundles(&target, taken));
        let keep = request.map(|id| Keep {
            request: request_key(fetcher, account_row, wanted, &id),
            answer: Arc::clone(&answer),
        });
        let device = match wanted {
            Wanted::One(device) => Some(device),
            Wanted::All => None,
        };
        let fetch = Fetch { account_row, device, now_ms: now_ms(), pace, keep };
        match self.store.take(fetch).await? {
            Taken::Before(answer) => Ok(answer),
            Taken::Now(taken) if taken.is_empty() => Err(ServiceError::NotFound("device")),
            Taken::Now(taken) => {
                self.note(&taken);
                Ok(answer(&taken))
            }
        }
    }

    fn pace_for(&self, fetcher: Fetcher) -> Result<Pace, ServiceError> {
        match (self.callers.spend(&fetcher), fetcher) {
            (Ok(()), _) => Ok(self.pace),
            (Err(_), Fetcher::KeyHolder(_)) => Ok(Pace { burst: 0, ..self.pace }),
            (Err(wait), Fetcher::Device(_)) => Err(ServiceError::TooMany(wait)),
        }
    }

    /// Counts bundles that were given out and tells devices that run low.
    fn note(&self, taken: &[TakenDevice]) {
        metrics::TAKEN.add(taken.len() as u64);
        for device in taken {
            let last_resort = device.kem_use == KemUse::LastResort;
            metrics::LAST_RESORT.add(last_resort.into());
            if last_resort || device.left.0.min(device.left.1) < self.low {
                if !self.bus.wake(device.mailbox, Wake::Keys) {
                    self.push.note_keys(device.mailbox);
                }
                self.bus.elsewhere(None, Notice::Keys(device.mailbox));
            }
        }
    }

    /// Forgets budgets that are full again and answers that were kept long enough.
    ///
    /// # Errors
    /// The store's.
    pub async fn tidy(&self) -> Result<(), ServiceError> {
        self.callers.forget_full();
        let before = now_ms().saturating_sub(self.replay_ttl_ms);
        while self.store.purge_answers(before).await? > 0 {}
        Ok(())
    }
}

/// As the caller gets them.
fn bundles(target: &AccountRow, taken: &[TakenDevice]) -> Bytes {
    let bundles = Bundles {
        identity_key: Bytes::copy_from_slice(&target.identity_key),
        devices: taken.iter().map(bundle).collect(),
    };
    bundles.encode_to_vec().into()
}

/// Whether an upload must bring the signed and the last-resort prekey.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fixed {
    Required,
    Optional,
}

/// Sizes, types, ids and signatures of an upload.
pub(super) fn checked_upload(
    upload: KeysUpload,
    identity: &PublicKey,
    fixed: Fixed,
    max_waiting: u64,
) -> Result<KeySet, ServiceError> {
    if upload.one_time.len() > BATCH || upload.one_time_kem.len() > BATCH {
        return Err(ServiceError::Invalid("at most 100 one-time prekeys of a kind in one upload"));
    }
    if fixed == Fixed::Required
        && (upload.signed_prekey.is_none() || upload.last_resort_kem.is_none())
    {
        return Err(ServiceError::Invalid("signed_prekey and last_resort_kem must be there"));
    }
    let digest = Sha256::digest(upload.encode_to_vec()).into();
    Ok(KeySet {
        signed: upload.signed_prekey.map(|key| signed_curve_key(key, identity)).transpose()?,
        last_resort: upload.last_resort_kem.map(|key| kem_key(key, identity)).transpose()?,
        one_time: ascending(upload.one_time, one_time_curve_key)?,
        one_time_kem: ascending(upload.one_time_kem, |key| kem_key(key, identity))?,
        waiting: if upload.replace_one_time { Waiting::Go } else { Waiting::Stay },
        digest,
        max_waiting: u32::try_from(max_waiting).unwrap_or(u32::MAX),
    })
}

fn ascending(
    keys: Vec<PublicPreKey>,
    check: impl Fn(PublicPreKey) -> Result<PreKeyRow, ServiceError>,
) -> Result<Vec<PreKeyRow>, ServiceError> {
    let mut rows = keys.into_iter().map(check).collect::<Result<Vec<_>, _>>()?;
    rows.sort_by_key(|row| row.id);
    if rows.iter().zip(rows.iter().skip(1)).any(|(row, next)| row.id == next.id) {
        return Err(ServiceError::Invalid("two prekeys of a kind have the same id"));
    }
    Ok(rows)
}

fn signed_curve_key(key: PublicPreKey, identity: &PublicKey) -> Result<PreKeyRow, ServiceError> {
    check_curve(&key)?;
    signed(key, identity)
}

fn one_time_curve_key(key: PublicPreKey) -> Result<PreKeyRow, ServiceError> {
    check_curve(&key)?;
    if !key.signature.is_empty() {
        return Err(ServiceError::Invalid("a one-time prekey of the curve has no signature"));
    }
    row(key)
}

fn kem_key(key: PublicPreKey, identity: &PublicKey) -> Result<PreKeyRow, ServiceError> {
    if key.key.len() != KEM_LEN || KemPublicKey::decode(&key.key).is_err() {
        return Err(ServiceError::Invalid("a KEM prekey must be 1569 bytes and of type 8"));
    }
    signed(key, identity)
}

fn check_curve(key: &PublicPreKey) -> Result<(), ServiceError> {
    if key.key.len() != CURVE_LEN || PublicKey::decode(&key.key).is_err() {
        return Err(ServiceError::Invalid("a prekey of the curve must be 33 bytes and of type 5"));
    }
    Ok(())
}

fn signed(key: PublicPreKey, identity: &PublicKey) -> Result<PreKeyRow, ServiceError> {
    identity
        .verify_signature(&key.key, &key.signature)
        .map_err(|_| ServiceError::Invalid("a prekey is not signed by the identity key"))?;
    row(key)
}

fn row(key: PublicPreKey) -> Result<PreKeyRow, ServiceError> {
    if key.id == 0 {
        return Err(ServiceError::Invalid("ids of prekeys begin at 1"));
    }
    // Copies: a slice of the request would keep the whole request in memory.
    let own = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
    Ok(PreKeyRow { id: key.id, key: own(&key.key), signature: own(&key.signature) })
}

fn counts(state: &KeyState, identity_key: &[u8; 33]) -> KeyCounts {
    KeyCounts {
        one_time: state.one_time,
        one_time_kem: state.one_time_kem,
        one_time_high_water: state.high_water,
        one_time_kem_high_water: state.high_water_kem,
        last_resort_uses: state.last_resort_uses,
        digest: digest(state, identity_key),
    }
}

/// SHA-256(identity key || signed prekey || last-resort KEM prekey), each prekey as BE32(id) || key || signature.
fn digest(state: &KeyState, identity_key: &[u8; 33]) -> Bytes {
    let mut all = BytesMut::new();
    all.put_slice(identity_key);
    for key in [&state.signed, &state.last_resort] {
        all.put_u32(key.id);
        all.put_slice(&key.key);
        all.put_slice(&key.signature);
    }
    Bytes::copy_from_slice(&Sha256::digest(&all))
}

fn bundle(taken: &TakenDevice) -> DeviceBundle {
    DeviceBundle {
        device_id: taken.device.into(),
        registration_id: taken.registration_id.into(),
        signed_prekey: Some(public(&taken.signed)),
        one_time: taken.one_time.as_ref().map(public),
        kem: Some(public(&taken.kem)),
    }
}

fn public(row: &PreKeyRow) -> PublicPreKey {
    PublicPreKey { id: row.id, key: row.key.clone(), signature: row.signature.clone() }
}

fn request_key(fetcher: Fetcher, target: i64, wanted: Wanted, id: &[u8; 16]) -> [u8; 16] {
    let (kind, who) = match fetcher {
        Fetcher::Device(mailbox) => (0, mailbox.0),
        Fetcher::KeyHolder(row) => (1, row),
    };
    let device = match wanted {
        Wanted::One(device) => device,
        Wanted::All => 0,
    };
    let hash = Sha256::new().chain_update([kind, device]).chain_update(who.to_be_bytes());
    let hash: [u8; 32] = hash.chain_update(target.to_be_bytes()).chain_update(id).finalize().into();
    hash.first_chunk().copied().unwrap_or_default()
}
