//! Sessions that libsignal begins: the responder's keys as the files give them, and the replay of a
//! conversation as x3dh_v3.json, pqxdh_v4.json and pqxdh_v4_spqr.json tell it.

use super::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use tuckseal::{
    Address, AgreementPolicy, BaseKeyUse, DecryptError, Decrypted, DeviceId, KemKeyPair, KemPreKey,
    KemPreKeyId, KemSecretKey, LocalParty, Needs, PreKey, PreKeyId, PreKeySignalMessage, PreKeys,
    SessionRecord, SessionVersion, SignalMessage, SignedPreKey, SignedPreKeyId, Timestamp, Trust,
};

pub(super) struct Responder {
    local: LocalParty,
    signed: SignedPreKey,
    one_time: Option<PreKey>,
    kem: Option<KemPreKey>,
}

/// Delivers the messages in this order to a responder without a session, then all of them again.
pub(super) fn replay(case: &Value, policy: AgreementPolicy, order: &[usize], number: usize) {
    let responder = Responder::read(&case["responder"], &case["recipient_address"]);
    let sender = address(&case["sender_address"]);
    let mut record = SessionRecord::new();
    let messages = cases(case, "messages");
    assert_eq!(order.len(), messages.len(), "case {number}");
    for message in order.iter().map(|place| &messages[*place]) {
        let decrypted = deliver(&responder, &sender, &mut record, message, policy);
        let decrypted = decrypted.unwrap_or_else(|error| panic!("case {number}: {error}"));
        assert_eq!(decrypted.plaintext, bytes(message, "plaintext"), "case {number}");
        let version = match policy {
            AgreementPolicy::AllowX3dh => SessionVersion::V3,
            _ => SessionVersion::V4,
        };
        assert_eq!(record.info().unwrap().version, version, "case {number}");
    }
    for message in messages {
        let before = record.encode();
        let again = deliver(&responder, &sender, &mut record, message, policy);
        assert!(matches!(again, Err(DecryptError::Duplicate { .. })), "case {number}: {again:?}");
        assert_eq!(*record.encode(), *before, "case {number}");
    }
}

fn deliver(
    responder: &Responder,
    sender: &Address,
    record: &mut SessionRecord,
    message: &Value,
    policy: AgreementPolicy,
) -> Result<Decrypted, DecryptError> {
    let body = bytes(message, "ciphertext");
    if message["type"] == 2 {
        let message = SignalMessage::decode(&body).unwrap();
        return record.decrypt(&responder.local, sender, &message, Trust::FirstUse, &mut rng());
    }
    let message = PreKeySignalMessage::decode(&body).unwrap();
    responder.decrypt_first(sender, record, &message, Trust::FirstUse, policy)
}

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([1; 32])
}

impl Responder {
    pub(super) fn read(keys: &Value, own_address: &Value) -> Self {
        let local = LocalParty {
            identity: identity(keys, "identity_private"),
            registration_id: 1,
            address: address(own_address),
        };
        let signed = SignedPreKey {
            id: SignedPreKeyId(number(keys, "signed_prekey_id")),
            pair: private(keys, "signed_prekey_private").into(),
            signature: [0; 64],
            created: Timestamp::default(),
        };
        let one_time = keys["one_time_prekey"].is_object().then(|| {
            let prekey = &keys["one_time_prekey"];
            PreKey { id: PreKeyId(number(prekey, "id")), pair: private(prekey, "private").into() }
        });
        let kem = keys["kyber_prekey"].is_object().then(|| {
            let prekey = &keys["kyber_prekey"];
            let secret = KemSecretKey::decode(&bytes(prekey, "secret")).unwrap();
            let pair = KemKeyPair::from_secret(secret);
            assert_eq!(pair.public().serialize(), bytes(prekey, "public"));
            let id = KemPreKeyId(number(prekey, "id"));
            KemPreKey { id, pair, signature: [0; 64], created: Timestamp::default() }
        });
        Self { local, signed, one_time, kem }
    }

    /// Delivers a first message with the prekeys that it names, as far as they are there, and with
    /// none when the session is.
    pub(super) fn decrypt_first(
        &self,
        sender: &Address,
        record: &mut SessionRecord,
        message: &PreKeySignalMessage,
        trust: Trust,
        policy: AgreementPolicy,
    ) -> Result<Decrypted, DecryptError> {
        let known = record.has_session_of(message);
        let prekeys = if known { PreKeys::NONE } else { self.prekeys(&message.needs()) };
        record.decrypt_first(&self.local, sender, message, prekeys, trust, policy, &mut rng())
    }

    pub(super) fn decrypt(
        &self,
        sender: &Address,
        record: &mut SessionRecord,
        message: &SignalMessage,
    ) -> Result<Decrypted, DecryptError> {
        record.decrypt(&self.local, sender, message, Trust::FirstUse, &mut rng())
    }

    fn prekeys(&self, needs: &Needs) -> PreKeys<'_> {
        PreKeys {
            signed: Some(&self.signed).filter(|it| it.id == needs.signed),
            one_time: self.one_time.as_ref().filter(|it| Some(it.id) == needs.one_time),
            kem: self.kem.as_ref().filter(|it| Some(it.id) == needs.kem),
            base_key: BaseKeyUse::First,
        }
    }
}

pub(super) fn address(pair: &Value) -> Address {
    let device = u8::try_from(pair[1].as_u64().unwrap()).unwrap();
    Address::new(pair[0].as_str().unwrap().parse().unwrap(), DeviceId::new(device).unwrap())
}
