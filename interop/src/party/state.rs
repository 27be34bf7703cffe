//! What a party keeps between calls: its keys, its prekeys, whom it trusts, its sessions. Nothing in
//! here changes unless an operation as a whole succeeded.

use super::Generator;
use crate::error::{Kind, Refusal};
use std::collections::{BTreeMap, BTreeSet};
use tuckseal::{
    Address, BaseKeyUse, Consumed, IdentityKey, KemPreKey, KemPreKeyId, LocalParty, Needs, PreKey,
    PreKeyBundle, PreKeyId, PreKeys, PublicKey, SenderKey, SenderKeyRecord, SessionRecord,
    SignedPreKey, SignedPreKeyId, Timestamp, Trust,
};

/// Whether a KEM prekey is deleted at its first use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum KemUse {
    OneTime,
    LastResort,
}

/// A base key, seen with a last-resort KEM prekey and a signed prekey (W§7.5).
pub(super) type Seen = (KemPreKeyId, SignedPreKeyId, PublicKey);

/// A UUID that names a group to one sender's keys.
pub(crate) type DistributionId = [u8; 16];

/// A party's persistent state.
pub(crate) struct State {
    pub(crate) local: LocalParty,
    /// Next id of a prekey; all kinds draw from it.
    pub(super) next_id: u32,
    pub(super) one_time: BTreeMap<PreKeyId, PreKey>,
    pub(super) signed: BTreeMap<SignedPreKeyId, SignedPreKey>,
    pub(super) kem: BTreeMap<KemPreKeyId, (KemUse, KemPreKey)>,
    pub(super) seen: BTreeSet<Seen>,
    pub(super) identities: BTreeMap<Address, IdentityKey>,
    pub(super) sessions: BTreeMap<Address, SessionRecord>,
    pub(crate) own_keys: BTreeMap<DistributionId, SenderKey>,
    pub(crate) sender_keys: BTreeMap<(Address, DistributionId), SenderKeyRecord>,
}

impl State {
    pub(crate) fn new(local: LocalParty) -> Self {
        Self {
            local,
            next_id: 1,
            one_time: BTreeMap::new(),
            signed: BTreeMap::new(),
            kem: BTreeMap::new(),
            seen: BTreeSet::new(),
            identities: BTreeMap::new(),
            sessions: BTreeMap::new(),
            own_keys: BTreeMap::new(),
            sender_keys: BTreeMap::new(),
        }
    }

    /// Makes fresh prekeys, keeps them, and publishes their bundle. Draws for the signed prekey,
    /// then for the one-time prekey, then for the KEM prekey, as far as asked for.
    pub(crate) fn bundle(
        &mut self,
        one_time: OneTime,
        kem: Option<KemUse>,
        created: Timestamp,
        rng: &mut Generator,
    ) -> Result<PreKeyBundle, Refusal> {
        let id = self.next_id;
        let used_up = || Refusal::new(Kind::Limit, "the party has used up its prekey ids");
        let next_id = id.checked_add(1).ok_or_else(used_up)?;
        let signed = SignedPreKey::generate(SignedPreKeyId(id), &self.local.identity, rng, created);
        let one_time =
            matches!(one_time, OneTime::Give).then(|| PreKey::generate(PreKeyId(id), rng));
        let kem = kem.map(|kem| {
            (kem, KemPreKey::generate(KemPreKeyId(id), &self.local.identity, rng, created))
        });
        let bundle = PreKeyBundle {
            registration_id: self.local.registration_id,
            device_id: self.local.address.device_id,
            identity_key: self.local.identity.identity_key(),
            signed_prekey: signed.public(),
            one_time: one_time.as_ref().map(PreKey::public),
            kem: kem.as_ref().map(|(_, prekey)| prekey.public()),
        };
        self.next_id = next_id;
        self.signed.insert(signed.id, signed);
        self.one_time.extend(one_time.map(|prekey| (prekey.id, prekey)));
        self.kem.extend(kem.map(|(kem, prekey)| (prekey.id, (kem, prekey))));
        Ok(bundle)
    }

    /// What is known of a remote's identity: trust on first use.
    pub(crate) fn trust(&self, remote: &Address) -> Trust {
        self.identities.get(remote).map_or(Trust::FirstUse, |known| Trust::Only(*known))
    }

    /// The identity key that is trusted as a remote's.
    pub(crate) fn identity(&self, remote: &Address) -> Option<IdentityKey> {
        self.identities.get(remote).copied()
    }

    /// Trusts this identity key from now on.
    pub(crate) fn accept(&mut self, remote: Address, identity: IdentityKey) {
        self.identities.insert(remote, identity);
    }

    /// The record of a remote, to look at.
    pub(crate) fn session(&self, remote: &Address) -> Option<&SessionRecord> {
        self.sessions.get(remote)
    }

    /// A copy of the record to work on; [`State::keep`] puts it back.
    pub(crate) fn record(&self, remote: &Address) -> SessionRecord {
        self.sessions.get(remote).cloned().unwrap_or_default()
    }

    /// Commits a record, and the identity that it was used with.
    pub(crate) fn keep(&mut self, remote: Address, record: SessionRecord, identity: IdentityKey) {
        self.sessions.insert(remote, record);
        self.identities.insert(remote, identity);
    }

    /// Puts a record that was taken over in the place of the remote's. The identity is that of its
    /// newest session, if it has one.
    pub(crate) fn replace(
        &mut self,
        remote: Address,
        record: SessionRecord,
        identity: Option<IdentityKey>,
    ) {
        self.sessions.insert(remote, record);
        self.identities.extend(identity.map(|identity| (remote, identity)));
    }

    /// Keeps a prekey that was taken over; those made later get higher ids.
    pub(crate) fn take_over_one_time(&mut self, prekey: PreKey) -> u32 {
        let id = prekey.id;
        self.one_time.insert(id, prekey);
        self.taken(id.0)
    }

    /// The same of a signed prekey.
    pub(crate) fn take_over_signed(&mut self, prekey: SignedPreKey) -> u32 {
        let id = prekey.id;
        self.signed.insert(id, prekey);
        self.taken(id.0)
    }

    /// The same of a KEM prekey.
    pub(crate) fn take_over_kem(&mut self, kem: KemUse, prekey: KemPreKey) -> u32 {
        let id = prekey.id;
        self.kem.insert(id, (kem, prekey));
        self.taken(id.0)
    }

    fn taken(&mut self, id: u32) -> u32 {
        self.next_id = self.next_id.max(id.saturating_add(1));
        id
    }

    /// Archives the current session with a remote, if there is one.
    pub(crate) fn archive(&mut self, remote: &Address) {
        if let Some(record) = self.sessions.get_mut(remote) {
            record.archive_current();
        }
    }

    /// The prekeys that a first message names, as far as they are here.
    pub(crate) fn prekeys(&self, needs: &Needs) -> PreKeys<'_> {
        let kem = needs.kem.and_then(|id| self.kem.get(&id));
        let seen =
            needs.kem.is_some_and(|id| self.seen.contains(&(id, needs.signed, needs.base_key)));
        PreKeys {
            signed: self.signed.get(&needs.signed),
            one_time: needs.one_time.and_then(|id| self.one_time.get(&id)),
            kem: kem.map(|(_, prekey)| prekey),
            base_key: if seen { BaseKeyUse::Repeated } else { BaseKeyUse::First },
        }
    }

    /// Deletes the one-time prekeys that a new session used up and remembers the base key of a
    /// last-resort one. Gives the id of the KEM prekey if that was a one-time one.
    pub(crate) fn consume(&mut self, consumed: &Consumed) -> Option<KemPreKeyId> {
        if let Some(id) = consumed.one_time {
            self.one_time.remove(&id);
        }
        let id = consumed.kem?;
        if self.kem.get(&id).is_some_and(|(kem, _)| *kem == KemUse::LastResort) {
            self.seen.insert((id, consumed.signed, consumed.base_key));
            return None;
        }
        self.kem.remove(&id);
        Some(id)
    }
}

/// Whether a bundle carries a one-time EC prekey.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OneTime {
    Give,
    Omit,
}
