//! Parties for the stories: each keeps what an app would keep, and every call that may fail is
//! wrapped so that an error with a changed state fails the test.
#![allow(unreachable_pub, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]
#![allow(dead_code, reason = "every story uses a part of it")]

pub mod world;

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use std::collections::{HashMap, HashSet};
use tuckseal::{
    Address, AgreementPolicy, BaseKeyUse, DecryptError, Decrypted, DeviceId, EncryptError,
    Encrypted, HandshakeError, IdentityKey, IdentityKeyPair, KemPreKey, KemPreKeyId, LocalParty,
    MessageKind, PreKey, PreKeyBundle, PreKeyId, PreKeySignalMessage, PreKeys, SessionRecord,
    SignalMessage, SignedPreKey, SignedPreKeyId, Timestamp, Trust,
};

pub const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// What a bundle offers beside the signed prekey.
#[derive(Clone, Copy)]
pub enum Offer {
    Everything,
    NoOneTime,
    NoKem,
}

/// How a KEM prekey is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum KemKind {
    OneTime,
    LastResort,
}

#[derive(Clone)]
pub struct Party {
    pub local: LocalParty,
    pub rng: ChaCha20Rng,
    pub now: Timestamp,
    pub policy: AgreementPolicy,
    pub sessions: HashMap<Address, SessionRecord>,
    pub known: HashMap<Address, IdentityKey>,
    pub signed: HashMap<SignedPreKeyId, SignedPreKey>,
    pub one_time: HashMap<PreKeyId, PreKey>,
    pub kem: HashMap<KemPreKeyId, (KemPreKey, KemKind)>,
    pub seen_base_keys: HashSet<(KemPreKeyId, SignedPreKeyId, [u8; 32])>,
    next_id: u32,
}

impl Party {
    pub fn new(seed: u8) -> Self {
        let mut rng = ChaCha20Rng::from_seed([seed; 32]);
        let address = Address::new(tuckseal::ServiceId::aci([seed; 16]), DeviceId::new(1).unwrap());
        let identity = IdentityKeyPair::generate(&mut rng);
        let local = LocalParty { identity, registration_id: u32::from(seed) + 100, address };
        Self {
            local,
            rng,
            now: NOW,
            policy: AgreementPolicy::RequireSpqr,
            sessions: HashMap::new(),
            known: HashMap::new(),
            signed: HashMap::new(),
            one_time: HashMap::new(),
            kem: HashMap::new(),
            seen_base_keys: HashSet::new(),
            next_id: 1,
        }
    }

    pub fn address(&self) -> Address {
        self.local.address
    }

    /// Makes and keeps fresh prekeys and offers them.
    pub fn bundle(&mut self, offer: Offer, kind: KemKind) -> PreKeyBundle {
        let id = self.next_id;
        self.next_id += 1;
        let identity = &self.local.identity;
        let signed = SignedPreKey::generate(SignedPreKeyId(id), identity, &mut self.rng, self.now);
        let one_time = PreKey::generate(PreKeyId(id), &mut self.rng);
        let kem = KemPreKey::generate(KemPreKeyId(id), identity, &mut self.rng, self.now);
        let bundle = PreKeyBundle {
            registration_id: self.local.registration_id,
            device_id: self.local.address.device_id,
            identity_key: identity.identity_key(),
            signed_prekey: signed.public(),
            one_time: (!matches!(offer, Offer::NoOneTime)).then(|| one_time.public()),
            kem: (!matches!(offer, Offer::NoKem)).then(|| kem.public()),
        };
        self.signed.insert(signed.id, signed);
        self.one_time.insert(one_time.id, one_time);
        self.kem.insert(kem.id, (kem, kind));
        bundle
    }

    pub fn trust(&self, remote: &Address) -> Trust {
        self.known.get(remote).map_or(Trust::FirstUse, |key| Trust::Only(*key))
    }

    pub fn initiate(
        &mut self,
        remote: Address,
        bundle: &PreKeyBundle,
    ) -> Result<(), HandshakeError> {
        let trust = self.trust(&remote);
        let record = self.sessions.entry(remote).or_default();
        unchanged_on_error(record, |record| {
            let (rng, now) = (&mut self.rng, self.now);
            record.initiate(&self.local, &remote, bundle, trust, self.policy, rng, now)
        })?;
        self.known.insert(remote, bundle.identity_key);
        Ok(())
    }

    pub fn encrypt(
        &mut self,
        remote: Address,
        plaintext: &[u8],
    ) -> Result<Encrypted, EncryptError> {
        let trust = self.trust(&remote);
        let record = self.sessions.entry(remote).or_default();
        unchanged_on_error(record, |record| {
            record.encrypt(&self.local, &remote, plaintext, trust, &mut self.rng, self.now)
        })
    }

    /// Decrypts and does what an app must do afterwards: save identity, delete prekeys.
    pub fn decrypt(
        &mut self,
        remote: Address,
        kind: MessageKind,
        body: &[u8],
    ) -> Result<Vec<u8>, DecryptError> {
        let trust = self.trust(&remote);
        let local = self.local.clone();
        let decrypted = match kind {
            MessageKind::Whisper => {
                let message = SignalMessage::decode(body).expect("test messages are well-formed");
                let record = self.sessions.entry(remote).or_default();
                unchanged_on_error(record, |record| {
                    record.decrypt(&local, &remote, &message, trust, &mut self.rng)
                })?
            }
            MessageKind::PreKey => {
                let message =
                    PreKeySignalMessage::decode(body).expect("test messages are well-formed");
                self.decrypt_first(remote, &message, trust)?
            }
            _ => panic!("no such kind in these stories"),
        };
        self.known.insert(remote, decrypted.identity);
        Ok(decrypted.plaintext)
    }

    fn decrypt_first(
        &mut self,
        remote: Address,
        message: &PreKeySignalMessage,
        trust: Trust,
    ) -> Result<Decrypted, DecryptError> {
        let needs = message.needs();
        let seen = needs.kem.is_some_and(|kem| {
            self.seen_base_keys.contains(&(kem, needs.signed, *needs.base_key.as_u()))
        });
        let prekeys = PreKeys {
            signed: self.signed.get(&needs.signed),
            one_time: needs.one_time.and_then(|id| self.one_time.get(&id)),
            kem: needs.kem.and_then(|id| self.kem.get(&id)).map(|(prekey, _)| prekey),
            base_key: if seen { BaseKeyUse::Repeated } else { BaseKeyUse::First },
        };
        let record = self.sessions.entry(remote).or_default();
        let decrypted = unchanged_on_error(record, |record| {
            let (policy, rng) = (self.policy, &mut self.rng);
            record.decrypt_first(&self.local, &remote, message, prekeys, trust, policy, rng)
        })?;
        if let Some(consumed) = decrypted.consumed {
            if let Some(id) = consumed.one_time {
                self.one_time.remove(&id);
            }
            if let Some(id) = consumed.kem {
                self.seen_base_keys.insert((id, consumed.signed, *consumed.base_key.as_u()));
                if self.kem.get(&id).is_some_and(|(_, kind)| *kind == KemKind::OneTime) {
                    self.kem.remove(&id);
                }
            }
        }
        Ok(decrypted)
    }

    /// What a process start does: every record goes through its stored form.
    pub fn restart(&mut self) {
        for record in self.sessions.values_mut() {
            let stored = record.encode();
            *record = SessionRecord::decode(&stored).expect("a record reads what it wrote");
            assert_eq!(*record.encode(), *stored, "the stored form is canonical");
        }
    }
}

/// Runs an operation on a record and asserts that an error left its stored form as it was.
pub fn unchanged_on_error<T, E>(
    record: &mut SessionRecord,
    operation: impl FnOnce(&mut SessionRecord) -> Result<T, E>,
) -> Result<T, E> {
    let before = record.encode();
    let result = operation(record);
    if result.is_err() {
        assert_eq!(*record.encode(), *before, "an error changed the record");
    }
    result
}

/// Alice and Bob, with a session that Alice began and Bob answered.
pub fn talking() -> (Party, Party) {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    begin(&mut alice, &mut bob);
    let hello = bob.encrypt(alice.address(), b"hello").unwrap();
    assert_eq!(alice.decrypt(bob.address(), hello.kind, &hello.body).unwrap(), b"hello");
    (alice, bob)
}

/// A first message from one to the other.
pub fn begin(from: &mut Party, to: &mut Party) {
    let bundle = to.bundle(Offer::Everything, KemKind::OneTime);
    from.initiate(to.address(), &bundle).unwrap();
    let first = from.encrypt(to.address(), b"first").unwrap();
    assert_eq!(first.kind, MessageKind::PreKey);
    assert_eq!(to.decrypt(from.address(), first.kind, &first.body).unwrap(), b"first");
}
