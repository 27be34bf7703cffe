//! The canonical encoding of a party's state (`party.dump`, `party.load`): JSON with fixed fields and
//! sorted lists. Equal states have equal bytes; other bytes than the canonical ones are refused.

use super::state::{KemUse, State};
use crate::error::Refusal;
use crate::request::{Hex, Remote};
use serde::{Deserialize, Serialize};
use tuckseal::{
    Address, IdentityKey, KemKeyPair, KemPreKey, KemPreKeyId, KemSecretKey, KeyPair, LocalParty,
    PreKey, PreKeyId, PrivateKey, PublicKey, SenderKey, SenderKeyRecord, SessionRecord,
    SignedPreKey, SignedPreKeyId, Timestamp,
};

/// Raised when the fields change.
const FORMAT: u32 = 2;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    address: Remote,
    registration_id: u32,
    identity: Hex,
    next_id: u32,
    one_time: Vec<(u32, Hex)>,
    signed: Vec<Pre>,
    kem: Vec<(KemUse, Pre)>,
    seen: Vec<(u32, u32, Hex)>,
    identities: Vec<(Remote, Hex)>,
    sessions: Vec<(Remote, Hex)>,
    own_keys: Vec<Hex>,
    sender_keys: Vec<(Remote, Hex, Hex)>,
}

/// A prekey that is signed and has a date.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pre {
    id: u32,
    private: Hex,
    signature: Hex,
    created: u64,
}

impl State {
    /// The whole state.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, Refusal> {
        let stored = Stored {
            format: FORMAT,
            address: self.local.address.into(),
            registration_id: self.local.registration_id,
            identity: private(self.local.identity.private_key()),
            next_id: self.next_id,
            one_time: self
                .one_time
                .values()
                .map(|it| (it.id.0, private(it.pair.private())))
                .collect(),
            signed: self.signed.values().map(store_signed).collect(),
            kem: self.kem.values().map(|(kem, it)| (*kem, store_kem(it))).collect(),
            seen: self.seen.iter().map(|(k, s, b)| (k.0, s.0, b.serialize().into())).collect(),
            identities: by_remote(self.identities.iter(), |key| key.serialize().into()),
            sessions: by_remote(self.sessions.iter(), |it| it.encode().as_ref().into()),
            own_keys: self.own_keys.values().map(|it| it.encode().as_ref().into()).collect(),
            sender_keys: self
                .sender_keys
                .iter()
                .map(|((from, id), it)| ((*from).into(), id.into(), it.encode().as_ref().into()))
                .collect(),
        };
        serde_json::to_vec(&stored).map_err(Refusal::bad_request)
    }

    /// Reads what [`State::encode`] wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let stored: Stored = serde_json::from_slice(bytes).map_err(Refusal::bad_request)?;
        let state = stored.load()?;
        if stored.format != FORMAT || state.encode()? != bytes {
            return Err(Refusal::bad_request("the state is not one that party.dump wrote"));
        }
        Ok(state)
    }
}

impl Stored {
    fn load(&self) -> Result<State, Refusal> {
        let mut state = State::new(LocalParty {
            identity: PrivateKey::from_bytes(&self.identity.0)?.into(),
            registration_id: self.registration_id,
            address: self.address.address()?,
        });
        state.next_id = self.next_id;
        for (id, key) in &self.one_time {
            let id = PreKeyId(*id);
            state.one_time.insert(id, PreKey { id, pair: key_pair(key)? });
        }
        for prekey in &self.signed {
            state.signed.insert(SignedPreKeyId(prekey.id), load_signed(prekey)?);
        }
        for (kem, prekey) in &self.kem {
            state.kem.insert(KemPreKeyId(prekey.id), (*kem, load_kem(prekey)?));
        }
        for (kem, signed, base) in &self.seen {
            let base = PublicKey::decode(&base.0)?;
            state.seen.insert((KemPreKeyId(*kem), SignedPreKeyId(*signed), base));
        }
        for (remote, key) in &self.identities {
            state.identities.insert(remote.address()?, IdentityKey::decode(&key.0)?);
        }
        for (remote, record) in &self.sessions {
            state.sessions.insert(remote.address()?, SessionRecord::decode(&record.0)?);
        }
        for key in &self.own_keys {
            let key = SenderKey::decode(&key.0)?;
            state.own_keys.insert(*key.distribution_id(), key);
        }
        for (sender, id, record) in &self.sender_keys {
            let place = (sender.address()?, id.exact("distribution id")?);
            state.sender_keys.insert(place, SenderKeyRecord::decode(&record.0)?);
        }
        Ok(state)
    }
}

fn by_remote<'a, T: 'a>(
    map: impl Iterator<Item = (&'a Address, &'a T)>,
    bytes: impl Fn(&T) -> Hex,
) -> Vec<(Remote, Hex)> {
    map.map(|(remote, value)| ((*remote).into(), bytes(value))).collect()
}

fn private(key: &PrivateKey) -> Hex {
    key.to_bytes().as_slice().into()
}

fn key_pair(private: &Hex) -> Result<KeyPair, Refusal> {
    Ok(PrivateKey::from_bytes(&private.0)?.into())
}

fn store_signed(prekey: &SignedPreKey) -> Pre {
    Pre {
        id: prekey.id.0,
        private: private(prekey.pair.private()),
        signature: prekey.signature.into(),
        created: prekey.created.as_millis(),
    }
}

fn load_signed(stored: &Pre) -> Result<SignedPreKey, Refusal> {
    Ok(SignedPreKey {
        id: SignedPreKeyId(stored.id),
        pair: key_pair(&stored.private)?,
        signature: stored.signature.exact("signature")?,
        created: Timestamp::from_millis(stored.created),
    })
}

fn store_kem(prekey: &KemPreKey) -> Pre {
    Pre {
        id: prekey.id.0,
        private: prekey.pair.secret().serialize().as_ref().into(),
        signature: prekey.signature.into(),
        created: prekey.created.as_millis(),
    }
}

fn load_kem(stored: &Pre) -> Result<KemPreKey, Refusal> {
    Ok(KemPreKey {
        id: KemPreKeyId(stored.id),
        pair: KemKeyPair::from_secret(KemSecretKey::decode(&stored.private.0)?),
        signature: stored.signature.exact("signature")?,
        created: Timestamp::from_millis(stored.created),
    })
}
