//! Our prekeys' life.
//!
//! ```text
//! one-time:            made ─ saved ─► uploaded ─► handed out once ─► used by a first message: deleted
//! signed, last resort: made ─ saved ─► uploaded ─ after 7 days ─► replaced ─ after 30 ─► deleted
//! ```
//!
//! A key is saved before it is published, and ids only grow. On every connection, and when the server says
//! that it runs low, what it has is compared with what we have. A profile that was restored from a backup has all of
//! the server's one-time keys replaced: of some it does not have the other half.

use rand_core::CryptoRng;
use sha2::{Digest, Sha256};
use tuckseal::service::{KeyCounts, KeysUpload, PublicPreKey};
use tuckseal::{
    IdentityKeyPair, KemPreKey, KemPreKeyId, PreKey, PreKeyId, SignedPreKey, SignedPreKeyId,
    Timestamp,
};

use super::flight::Request;
use super::settings::earlier;
use super::{Action, Engine, Settings, Turn};
use crate::event::Event;
use crate::store::{HighWater, KemUse, Origin, Own, ProfileError, Rows};
use crate::transport::{ServerError, UploadError};

/// Most one-time keys of a kind in one upload.
const UPLOAD_MAX: u32 = 100;

/// What an upload held, to be marked when it is through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Upload {
    last_one_time: Option<PreKeyId>,
    last_kem: Option<KemPreKeyId>,
    /// All that the server had before went.
    replaced: bool,
}

impl Upload {
    /// The server does not take those up to these marks; without marks it takes none.
    fn mark_seen(self, rows: Rows<'_>, seen: HighWater) -> Result<(), ProfileError> {
        if seen == HighWater::default() {
            return self.mark(rows);
        }
        let one_time = self.last_one_time.map(|last| PreKeyId(last.0.min(seen.one_time)));
        // Both kinds of KEM prekeys share their ids.
        let kem = seen.one_time_kem.max(seen.last_resort);
        let kem = self.last_kem.map(|last| KemPreKeyId(last.0.min(kem)));
        rows.mark_uploaded(one_time, kem)
    }

    /// The server has them.
    pub(crate) fn mark(self, rows: Rows<'_>) -> Result<(), ProfileError> {
        rows.mark_uploaded(self.last_one_time, self.last_kem)
    }
}

/// Draws and saves all keys of a profile that is to be registered.
pub(crate) fn new_profile(
    rows: Rows<'_>,
    own: &Own,
    settings: &Settings,
    rng: &mut dyn CryptoRng,
    now: Timestamp,
) -> Result<(), ProfileError> {
    rows.insert_own(own)?;
    make_long_lived(rows, &own.identity, rng, now)?;
    make_one_time(
        rows,
        &own.identity,
        settings.one_time_prekeys,
        settings.one_time_kem_prekeys,
        rng,
        now,
    )
}

/// What the registration publishes, and its mark.
pub(crate) fn registration_keys(rows: Rows<'_>) -> Result<(KeysUpload, Upload), ProfileError> {
    upload(rows, LongLived::With)
}

fn make_long_lived(
    rows: Rows<'_>,
    identity: &IdentityKeyPair,
    mut rng: &mut dyn CryptoRng,
    now: Timestamp,
) -> Result<(), ProfileError> {
    let (_, kem, signed) = rows.take_ids(0, 1, 1)?;
    rows.insert_signed(&SignedPreKey::generate(SignedPreKeyId(signed), identity, &mut rng, now))?;
    rows.insert_kem(
        &KemPreKey::generate(KemPreKeyId(kem), identity, &mut rng, now),
        KemUse::LastResort,
    )
}

fn make_one_time(
    rows: Rows<'_>,
    identity: &IdentityKeyPair,
    one_time: u32,
    kem: u32,
    mut rng: &mut dyn CryptoRng,
    now: Timestamp,
) -> Result<(), ProfileError> {
    let (first, first_kem, _) = rows.take_ids(one_time, kem, 0)?;
    for id in first..first.saturating_add(one_time) {
        rows.insert_one_time(&PreKey::generate(PreKeyId(id), &mut rng))?;
    }
    let ids = (first_kem..first_kem.saturating_add(kem)).map(KemPreKeyId);
    for prekey in KemPreKey::generate_many(ids, identity, &mut rng, now) {
        rows.insert_kem(&prekey, KemUse::OneTime)?;
    }
    Ok(())
}

fn seen(counts: &KeyCounts) -> HighWater {
    HighWater {
        one_time: counts.one_time_high_water,
        one_time_kem: counts.one_time_kem_high_water,
        // Of these the digest tells.
        signed: 0,
        last_resort: 0,
    }
}

/// Whether an upload carries the signed and the last-resort prekey too.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LongLived {
    With,
    Without,
}

fn upload(rows: Rows<'_>, long_lived: LongLived) -> Result<(KeysUpload, Upload), ProfileError> {
    let (one_time, kem) = rows.to_upload(UPLOAD_MAX)?;
    let mut keys = KeysUpload {
        one_time: one_time.iter().map(public_one_time).collect(),
        one_time_kem: kem.iter().map(public_kem).collect(),
        ..KeysUpload::default()
    };
    if long_lived == LongLived::With {
        let (signed, last_resort) = long_lived_keys(rows)?;
        keys.signed_prekey = Some(public_signed(&signed));
        keys.last_resort_kem = Some(public_kem(&last_resort));
    }
    let upload = Upload {
        last_one_time: one_time.last().map(|key| key.id),
        last_kem: kem.last().map(|key| key.id),
        replaced: false,
    };
    Ok((keys, upload))
}

fn long_lived_keys(rows: Rows<'_>) -> Result<(SignedPreKey, KemPreKey), ProfileError> {
    let damaged = || ProfileError::Damaged { what: "prekey" };
    Ok((
        rows.current_signed()?.ok_or_else(damaged)?,
        rows.current_last_resort()?.ok_or_else(damaged)?,
    ))
}

fn public_one_time(prekey: &PreKey) -> PublicPreKey {
    let key = prekey.pair.public().serialize().to_vec();
    PublicPreKey { id: prekey.id.0, key: key.into(), signature: bytes::Bytes::new() }
}

fn public_signed(prekey: &SignedPreKey) -> PublicPreKey {
    let key = prekey.pair.public().serialize().to_vec();
    PublicPreKey { id: prekey.id.0, key: key.into(), signature: prekey.signature.to_vec().into() }
}

fn public_kem(prekey: &KemPreKey) -> PublicPreKey {
    let key = prekey.pair.public().serialize();
    PublicPreKey { id: prekey.id.0, key: key.into(), signature: prekey.signature.to_vec().into() }
}

/// SHA-256 of the identity key and both long-lived prekeys, as the server makes it.
fn digest(
    identity: &IdentityKeyPair,
    signed: &PublicPreKey,
    last_resort: &PublicPreKey,
) -> [u8; 32] {
    let mut hash = Sha256::new().chain_update(identity.identity_key().serialize());
    for prekey in [signed, last_resort] {
        hash = hash
            .chain_update(prekey.id.to_be_bytes())
            .chain_update(&prekey.key)
            .chain_update(&prekey.signature);
    }
    hash.finalize().into()
}

impl Engine {
    /// Compares what the server has with what it should have.
    pub(super) fn key_counts(
        &mut self,
        counts: Result<KeyCounts, ServerError>,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        let Ok(counts) = counts else {
            self.keys_request = self.keys_request.failed(turn);
            return Ok(());
        };
        if matches!(self.keys_request, Request::Uploading { .. }) {
            // A notice; the upload's answer has newer counts.
            return Ok(());
        }
        self.compare_ids(seen(&counts), turn)?;
        let stock = self.stock();
        let Self { store, own, settings, .. } = self;
        let (keys, upload) =
            store.commit(|rows| supply(rows, &own.identity, settings, (&counts, stock), turn))?;
        if keys == KeysUpload::default() {
            self.keys_request = Request::Idle;
            return Ok(());
        }
        self.keys_request = Request::Uploading { attempt: self.keys_request.attempt() };
        turn.actions.push(Action::UploadKeys { keys, upload });
        Ok(())
    }

    fn stock(&self) -> Stock {
        if self.origin == Origin::Restored && !self.restocked {
            Stock::Doubtful
        } else {
            Stock::Good
        }
    }

    /// A server that has seen ids which we have not given yet has seen a later state of us.
    fn compare_ids(&mut self, seen: HighWater, turn: &mut Turn<'_>) -> Result<(), ProfileError> {
        let (one_time, kem, signed) = self.store.rows().next_ids()?;
        let is_ahead = seen.one_time >= one_time
            || seen.one_time_kem.max(seen.last_resort) >= kem
            || seen.signed >= signed;
        if is_ahead && self.origin == Origin::Continued {
            self.store.commit(super::recovery::restored)?;
            self.origin = Origin::Restored;
            turn.tell(Event::Restored);
            self.flights.clear();
            self.ask_due(turn)?;
            self.pump_all(turn)?;
        }
        Ok(())
    }

    pub(super) fn keys_uploaded(
        &mut self,
        upload: Upload,
        result: Result<KeyCounts, UploadError>,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        let seen = match result {
            Ok(_) => {
                self.store.commit(|rows| upload.mark(rows))?;
                self.restocked |= upload.replaced;
                self.keys_request = Request::Idle;
                return Ok(());
            }
            Err(UploadError::Used(seen)) => Some(seen),
            Err(UploadError::Server(ServerError::Conflict | ServerError::Refused { .. })) => {
                Some(HighWater::default())
            }
            Err(UploadError::Server(_)) => None,
        };
        if let Some(seen) = seen {
            // The server will not take these ids any more. Their private halves stay; new keys take their
            // place, with ids above all that it has seen.
            self.compare_ids(seen, turn)?;
            let identity = &self.own.identity;
            self.store.commit(|rows| {
                rows.raise_ids(seen)?;
                make_long_lived(rows, identity, turn.rng, turn.now)?;
                upload.mark_seen(rows, seen)
            })?;
        }
        self.keys_request = self.keys_request.failed(turn);
        Ok(())
    }
}

/// Whether we have the other halves of the one-time keys that the server has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stock {
    Good,
    Doubtful,
}

/// Makes what is missing and says what is to be uploaded.
fn supply(
    rows: Rows<'_>,
    identity: &IdentityKeyPair,
    settings: &Settings,
    (counts, stock): (&KeyCounts, Stock),
    turn: &mut Turn<'_>,
) -> Result<(KeysUpload, Upload), ProfileError> {
    let now = turn.now;
    rows.raise_ids(seen(counts))?;
    if stock == Stock::Doubtful {
        // Under these ids it may have others.
        let (one_time, kem) = (counts.one_time_high_water, counts.one_time_kem_high_water);
        rows.mark_uploaded(Some(PreKeyId(one_time)), Some(KemPreKeyId(kem)))?;
    }
    let (signed, _) = long_lived_keys(rows)?;
    if signed.created <= earlier(now, settings.prekey_life) {
        make_long_lived(rows, identity, turn.rng, now)?;
    }
    rows.delete_replaced(earlier(now, settings.prekey_kept))?;
    let (waiting, waiting_kem) = rows.to_upload(UPLOAD_MAX)?;
    let lacking = |have: u32, waiting: usize, full: u32| {
        let have = if stock == Stock::Good { have } else { 0 };
        let low = have < settings.prekeys_low && waiting == 0;
        if low { full.saturating_sub(have).min(UPLOAD_MAX) } else { 0 }
    };
    let one_time = lacking(counts.one_time, waiting.len(), settings.one_time_prekeys);
    let kem = lacking(counts.one_time_kem, waiting_kem.len(), settings.one_time_kem_prekeys);
    make_one_time(rows, identity, one_time, kem, turn.rng, now)?;
    let (signed, last_resort) = long_lived_keys(rows)?;
    let ours = digest(identity, &public_signed(&signed), &public_kem(&last_resort));
    let long_lived = if counts.digest[..] == ours { LongLived::Without } else { LongLived::With };
    let (keys, upload) = upload(rows, long_lived)?;
    let replaced = stock == Stock::Doubtful;
    Ok((KeysUpload { replace_one_time: replaced, ..keys }, Upload { replaced, ..upload }))
}
